//! The Kubernetes pod and the container of a process, by its control group. Pure.

/// Where a process is contained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Uid of the pod, with dashes.
    pub(super) pod: Option<String>,
    /// Id of the container, as the runtime gives it.
    pub(super) container: Option<String>,
}

/// Shortest container id that is believed, in hexadecimal digits: runtimes give 64, some tools cut to 12.
const MIN_ID_LEN: usize = 12;

/// Prefixes that container runtimes put before the id in a systemd scope.
const SCOPE_PREFIXES: [&str; 7] = [
    "cri-containerd-",
    "crio-",
    "docker-",
    "libpod-",
    "nerdctl-",
    "containerd-",
    "cri-o-",
];

/// The pod and container in a cgroup path; both `None` outside of any. Known layouts:
/// - cgroupfs driver: `/kubepods/burstable/podUID/ID`, `/kubepods/podUID/ID`;
/// - systemd driver: `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-ID.scope`
///   with the dashes of the uid as underscores, and `…podUID.slice:cri-containerd:ID`;
/// - docker: `/docker/ID`, `/system.slice/docker-ID.scope`; podman: `…/libpod-ID.scope/container`.
pub(super) fn place(path: &str) -> Place {
    let mut place = Place::default();
    for segment in path.split('/').flat_map(|segment| segment.split(':')) {
        if let Some(pod) = pod_uid(segment) {
            place.pod = Some(pod);
        } else if let Some(id) = container_id(segment) {
            // The innermost wins: docker inside a pod, kind inside docker.
            place.container = Some(id.to_owned());
        }
    }
    place
}

/// `podUID`, or `kubepods-besteffort-podUID.slice`, also below another prefix such as `kubelet-`.
fn pod_uid(segment: &str) -> Option<String> {
    let name = segment.strip_suffix(".slice").unwrap_or(segment);
    let uid = match name.rsplit_once("-pod") {
        Some((before, uid)) if before.contains("kubepods") => uid,
        _ => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    is_uid(&uid).then_some(uid)
}

/// A uid with dashes, or the 32 digits that static pods have.
fn is_uid(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    digits == 32 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn container_id(segment: &str) -> Option<&str> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    let id = SCOPE_PREFIXES
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    let plausible = id.len() >= MIN_ID_LEN && id.bytes().all(|b| b.is_ascii_hexdigit());
    plausible.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1b2a3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8";
    const UID: &str = "0f3b6a52-7c1d-4e8f-9a0b-1c2d3e4f5a6b";

    fn check(path: &str, pod: bool, container: bool) {
        let path = path
            .replace("UID_", &UID.replace('-', "_"))
            .replace("UID", UID)
            .replace("ID", ID);
        let expected = Place {
            pod: pod.then(|| UID.to_owned()),
            container: container.then(|| ID.to_owned()),
        };
        assert_eq!(place(&path), expected, "{path}");
    }

    #[test]
    fn pods_are_found_in_each_driver_s_layout() {
        check("/kubepods/burstable/podUID/ID", true, true);
        check("/kubepods/podUID/ID", true, true);
        check(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
            true,
            true,
        );
        check(
            "/kubepods.slice/kubepods-podUID_.slice/crio-ID.scope/container",
            true,
            true,
        );
        check(
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID_.slice/cri-containerd-ID.scope",
            true,
            true,
        );
        check(
            "/system.slice/containerd.service/kubepods-besteffort-podUID_.slice:cri-containerd:ID",
            true,
            true,
        );
        check("/../../kubepods/podUID", true, false);
    }

    #[test]
    fn containers_outside_of_pods_are_found() {
        check("/docker/ID", false, true);
        check("/system.slice/docker-ID.scope", false, true);
        check("/machine.slice/libpod-ID.scope/container", false, true);
        check(
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            false,
            true,
        );
        check("/default/ID", false, true);
    }

    #[test]
    fn a_plain_process_is_in_neither() {
        check("/", false, false);
        check("/user.slice/user-1000.slice/session-3.scope", false, false);
        check("/system.slice/podman.service", false, false);
        check("/system.slice/cafe.service", false, false);
    }
}
