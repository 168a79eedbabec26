//! The systemd units, held to systemd's own checks.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use entrenar_tests::external::external;

use crate::{flags, shipped, text};

const UNITS: [(&str, &str); 2] = [
    ("entrenar-agent", "systemd/agent.env"),
    ("entrenar-aggregator", "systemd/aggregator.env"),
];

/// Highest exposure that `systemd-analyze security` may find, in tenths: 0 is sealed, 100 is open.
const EXPOSURE: &str = "--threshold=18";

#[test]
fn systemd_finds_nothing_to_remark_about_our_units() {
    for (unit, _) in UNITS {
        let Some(mut analyze) = external("systemd-analyze", "systemd") else {
            return;
        };
        // The program that a unit starts must be there: stand-ins take its place.
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(unit);
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let here = text(&format!("systemd/{unit}.service"))
            .replace("/usr/local/bin", &dir.path().to_string_lossy());
        let copy = dir.path().join(format!("{unit}.service"));
        fs::write(&copy, here).unwrap();

        let out = analyze
            .args(["verify", "--man=no"])
            .arg(&copy)
            .output()
            .unwrap();
        // An unknown key is a remark, not a failure.
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && said.is_empty(), "{unit}: {said}");
    }
}

#[test]
fn our_units_expose_little_of_the_host() {
    for (unit, _) in UNITS {
        let Some(mut analyze) = external("systemd-analyze", "systemd") else {
            return;
        };
        let out = analyze
            .args(["security", "--offline=true", "--no-pager", EXPOSURE])
            .arg(shipped(&format!("systemd/{unit}.service")))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let open: Vec<_> = said.lines().filter(|line| line.contains('✗')).collect();
        assert!(out.status.success(), "{unit}:\n{}", open.join("\n"));
    }
}

#[test]
fn units_and_their_environment_set_flags_that_exist() {
    for (unit, environment) in UNITS {
        let service = text(&format!("systemd/{unit}.service"));
        let line = service
            .lines()
            .find_map(|l| l.strip_prefix("ExecStart="))
            .unwrap();
        flags::check_line(unit, line.split(' '));
        flags::check_environment(unit, &text(environment));
    }
}

#[test]
fn each_unit_runs_as_a_user_that_is_made() {
    let users = text("systemd/entrenar.sysusers.conf");
    for (unit, _) in UNITS {
        let service = text(&format!("systemd/{unit}.service"));
        let user = service
            .lines()
            .find_map(|l| l.strip_prefix("User="))
            .unwrap();
        assert!(users.contains(&format!("\nu {user} ")), "{unit}: {user}");
    }
}
