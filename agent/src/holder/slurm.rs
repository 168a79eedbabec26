//! The Slurm job of a process, by its control group. Pure.

/// The job id in a cgroup path, as Slurm's cgroup plugins lay it out:
/// - version 1: `/slurm/uid_1000/job_1234/step_0/task_0`, or `/slurm_NODE/…` with several daemons on a host;
/// - version 2: `/system.slice/slurmstepd.scope/job_1234/step_0/user/task_0`, or `NODE_slurmstepd.scope`.
pub(super) fn job_id(path: &str) -> Option<&str> {
    let mut segments = path.split('/');
    segments.find(|segment| is_slurm(segment))?;
    let id = segments.find_map(|segment| segment.strip_prefix("job_"))?;
    let digits = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    digits.then_some(id)
}

fn is_slurm(segment: &str) -> bool {
    segment == "slurm" || segment.starts_with("slurm_") || segment.ends_with("slurmstepd.scope")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_found_in_both_layouts() {
        let check = |path: &str, job: Option<&str>| assert_eq!(job_id(path), job, "{path}");
        check("/slurm/uid_1000/job_1234/step_0/task_0", Some("1234"));
        check("/slurm_gpu07/uid_1000/job_77/step_batch", Some("77"));
        check(
            "/system.slice/slurmstepd.scope/job_1234/step_0/user/task_0",
            Some("1234"),
        );
        check(
            "/system.slice/gpu07_slurmstepd.scope/job_5/step_extern",
            Some("5"),
        );
        check(
            "/../../system.slice/slurmstepd.scope/job_9/step_0",
            Some("9"),
        );
        check("/user.slice/job_12", None);
        check("/system.slice/slurmstepd.scope/system", None);
        check("/slurm/uid_0/job_/step_0", None);
    }
}
