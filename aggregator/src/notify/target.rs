//! Where a request may go. The operator's own file may name loopback and private addresses; link-local addresses and
//! the metadata services of clouds are refused, when the file is read and again when a name is resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services outside the link-local range: Alibaba, Azure's wire server, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254),
];
/// Names of metadata services.
const METADATA_NAMES: [&str; 3] = ["metadata", "metadata.google.internal", "instance-data"];

/// Why a URL is no target. It never repeats the URL, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("it is not a URL: {0}")]
    NotAUrl(String),
    #[error("it must begin with https:// or http://")]
    Scheme,
    #[error("it has a user name or password: put secrets into a file of their own")]
    Credentials,
    #[error(
        "it points to a link-local, multicast or cloud metadata address, which is never a receiver"
    )]
    Denied,
}

/// Reads a URL and refuses what is no target.
pub fn parse(text: &str) -> Result<Url, TargetError> {
    let url = Url::parse(text.trim()).map_err(|e| TargetError::NotAUrl(e.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(TargetError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TargetError::Credentials);
    }
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let denied = match bare.parse::<IpAddr>() {
        Ok(address) => is_denied(address),
        Err(_) => METADATA_NAMES.contains(&bare.trim_end_matches('.')),
    };
    if denied {
        Err(TargetError::Denied)
    } else {
        Ok(url)
    }
}

/// Whether nothing is ever sent to this address.
pub fn is_denied(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_denied_v4(v4),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.is_unspecified()
                || METADATA_V6.contains(&v6)
                || translated(v6).is_some_and(is_denied_v4)
        }
    }
}

fn is_denied_v4(v4: Ipv4Addr) -> bool {
    v4.is_link_local()
        || v4.is_multicast()
        || v4.is_unspecified()
        || v4.is_broadcast()
        || METADATA_V4.contains(&v4)
}

/// The IPv4 address inside a NAT64 address (RFC 6052, `64:ff9b::/96`) or a 6to4 one (RFC 3056, `2002::/16`).
fn translated(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let o = v6.octets();
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(Ipv4Addr::new(o[12], o[13], o[14], o[15])),
        [0x2002, ..] => Some(Ipv4Addr::new(o[2], o[3], o[4], o[5])),
        _ => None,
    }
}

/// Resolves names, and forgets the addresses that are denied: a name that changes after the file was read gains nothing.
#[derive(Debug)]
pub struct GuardedResolver;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|a| !is_denied(a.ip())).collect();
            if allowed.is_empty() {
                return Err(TargetError::Denied.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_link_local_addresses_are_no_targets_however_they_are_written() {
        for denied in [
            "http://169.254.169.254/latest",
            "http://2852039166/", // 169.254.169.254 as one number
            "http://0xa9fea9fe/",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://Metadata.Google.Internal./",
            "http://0.0.0.0/",
            "http://224.0.0.1/",
        ] {
            assert_eq!(parse(denied), Err(TargetError::Denied), "{denied}");
        }
    }

    #[test]
    fn loopback_and_private_addresses_are_the_operator_s_choice() {
        for allowed in [
            "http://127.0.0.1:9093/x",
            "http://[::1]:9093/",
            "http://localhost:80/",
            "https://10.1.2.3/",
            "https://hooks.slack.com/services/T/B/X",
        ] {
            assert!(parse(allowed).is_ok(), "{allowed}");
        }
    }

    #[test]
    fn other_schemes_and_credentials_are_refused() {
        assert_eq!(parse("ftp://example.org"), Err(TargetError::Scheme));
        assert_eq!(
            parse("https://u:p@example.org"),
            Err(TargetError::Credentials)
        );
        assert!(matches!(
            parse("hooks.slack.com"),
            Err(TargetError::NotAUrl(_))
        ));
    }

    #[tokio::test]
    async fn a_name_is_judged_by_its_addresses_when_it_is_used() {
        let resolve = |name: &str| GuardedResolver.resolve(name.parse().expect("a name"));
        let refused = resolve("169.254.169.254").await.err().expect("denied");
        assert_eq!(refused.to_string(), TargetError::Denied.to_string());
        assert!(resolve("localhost").await.is_ok());
    }
}
