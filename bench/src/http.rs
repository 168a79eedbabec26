//! The little HTTP that a scrape needs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};

/// Fetches a page from a server; the body, as it came.
pub fn get(address: &str, path: &str) -> Result<String> {
    ask("GET", address, path)
}

/// Posts nothing to a server; the body of its answer, as it came.
pub fn post(address: &str, path: &str) -> Result<String> {
    ask("POST", address, path)
}

fn ask(method: &str, address: &str, path: &str) -> Result<String> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("no server at {address}"))?;
    // In version 1.0 the end of the connection is the end of the body, whatever its length.
    let request =
        format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{address}{path} answered without a body");
    };
    if head.split(' ').nth(1) != Some("200") {
        bail!(
            "{address}{path} answered {}: {body}",
            head.lines().next().unwrap_or_default()
        );
    }
    Ok(body.to_owned())
}

/// The value of a metric without labels on a page for Prometheus.
pub fn metric(page: &str, name: &str) -> Option<f64> {
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// The same of one with labels: the sum over all of them. 0 where there is none.
pub fn metric_sum(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    let of_name = lines.filter(|rest| rest.starts_with(['{', ' ']));
    let values = of_name.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_summed_over() {
        let page = "a{b=\"c d\"} 2\na{b=\"e\"} 3\nab 7\n";
        assert!((metric_sum(page, "a") - 5.0).abs() < 1e-9);
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let page = "# TYPE a counter\na_total 7\na 3.5\n";
        assert_eq!(metric(page, "a"), Some(3.5));
        assert_eq!(metric(page, "a_total"), Some(7.0));
        assert_eq!(metric(page, "b"), None);
    }
}
