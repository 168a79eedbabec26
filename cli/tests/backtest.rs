//! `entrenar backtest` as people and scripts run it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const HEADER: &str = "time,node,gpu,uuid,job,temperature_celsius,utilization_percent,memory_utilization_percent,power_watts,xid\n";

/// Two nodes work on one job for three minutes; then the second is silent, and the first waits for it.
fn a_node_is_lost() -> String {
    let mut trace = String::from(HEADER);
    for second in 0..240 {
        for node in ["n1", "n2"]
            .into_iter()
            .filter(|n| second < 180 || *n == "n1")
        {
            let busy = if second < 181 {
                "99,45,690"
            } else {
                "100,0,128"
            };
            let _ = writeln!(
                trace,
                "{},{node},0,GPU-{node},7,62,{busy},",
                1_700_000_000 + second
            );
        }
    }
    trace
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("writable");
    path
}

fn backtest(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_entrenar"));
    command.arg("backtest");
    command.args(arguments.iter().map(AsRef::as_ref));
    command.output().expect("runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn objects(text: &str) -> Vec<Value> {
    let object = |line| serde_json::from_str(line).expect("an object a line");
    text.lines().map(object).collect()
}

#[test]
fn a_lost_node_is_one_object_with_every_field() {
    let dir = tempfile::tempdir().expect("a directory");
    let trace = write(dir.path(), "lost.csv", &a_node_is_lost());
    let output = backtest(&[&trace, &"--format", &"jsonl"]);
    assert!(output.status.success(), "{}", err(&output));
    let found = objects(&out(&output));
    assert_eq!(found.len(), 1, "{}", out(&output));
    let expected = serde_json::json!({
        "id": "NodeLost-1", "kind": "NodeLost", "severity": "critical",
        "scope": {"node": "n2", "gpu": null, "job": "7"},
        "started_at": 1_700_000_179.0, "fired_at": 1_700_000_183.0, "resolved_at": null,
        "culprits": [{"node": "n2", "gpu": null}], "consequence_of": null,
        "summary": found[0]["summary"],
    });
    assert_eq!(found[0], expected);
}

#[test]
fn people_read_what_where_when_and_a_summary() {
    let dir = tempfile::tempdir().expect("a directory");
    let trace = write(dir.path(), "lost.csv", &a_node_is_lost());
    let output = backtest(&[&trace]);
    let text = out(&output);
    for part in [
        "2023-11-14T22:16:23.000Z  critical  NodeLost",
        "n2, job 7",
        "still open, look first at n2",
        "420 rows of 2 GPUs on 2 nodes",
        "rows/s",
        "NodeLost                  1        0        0            0",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert_eq!(err(&output), "");
}

#[test]
fn several_traces_are_told_apart_and_written_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let lost = write(dir.path(), "lost.csv", &a_node_is_lost());
    let fine = write(
        dir.path(),
        "fine.csv",
        &a_node_is_lost().replace(",n2,", ",n1,"),
    );
    let output = backtest(&[&lost, &fine, &"--format", &"jsonl"]);
    let found = objects(&out(&output));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["trace"], "lost");

    let to = dir.path().join("found");
    let output = backtest(&[&lost, &fine, &"--format", &"jsonl", &"--out", &to]);
    assert_eq!(
        (output.status.code(), out(&output)),
        (Some(0), String::new())
    );
    let file = |name: &str| fs::read_to_string(to.join(name)).expect("written");
    assert_eq!(objects(&file("lost.jsonl")).len(), 1);
    assert_eq!(file("fine.jsonl"), "");

    let other = dir.path().join("other");
    fs::create_dir(&other).expect("a directory");
    let same = write(&other, "lost.csv", HEADER);
    let output = backtest(&[&lost, &same, &"--out", &to]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("have one name"), "{}", err(&output));
}

#[test]
fn a_malformed_row_is_named_and_skipped() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut text = a_node_is_lost();
    text.push_str("never,n1,0,GPU-n1,7,62,99,45,690,\n");
    let trace = write(dir.path(), "t.csv", &text);
    let output = backtest(&[&trace, &"--format", &"jsonl"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        err(&output).contains("line 422: `never` is not a value of column `time`"),
        "{}",
        err(&output)
    );
    assert_eq!(objects(&out(&output)).len(), 1);
}

#[test]
fn what_is_no_trace_ends_with_status_2_and_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let many_bad = format!("{HEADER}{}", "x,n1,0,,,,,,,\n".repeat(3));
    for (name, text, reason) in [
        ("empty.csv", "", "has no header line"),
        (
            "prose.csv",
            "once upon a time\nthere was a GPU\n",
            "has no header line",
        ),
        ("timeless.csv", "node,gpu\nn1,0\n", "no `time` column"),
        ("nodeless.csv", "time,gpu\n1,0\n", "no `node` column"),
        ("bad.csv", many_bad.as_str(), "3 of 3 rows are malformed"),
    ] {
        let trace = write(dir.path(), name, text);
        let output = backtest(&[&trace, &"--format", &"jsonl"]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(err(&output).contains(reason), "{name}: {}", err(&output));
        assert_eq!(out(&output), "", "{name}");
    }
    let missing = backtest(&[&dir.path().join("nowhere.csv")]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("nowhere.csv"), "{}", err(&missing));
    assert_eq!(backtest(&[]).status.code(), Some(2));
}

#[test]
fn one_bad_trace_does_not_silence_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let bad = write(dir.path(), "bad.csv", "");
    let lost = write(dir.path(), "lost.csv", &a_node_is_lost());
    let output = backtest(&[&bad, &lost, &"--format", &"jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(objects(&out(&output)).len(), 1);
}

#[test]
fn a_file_that_is_cut_off_ends_with_status_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(a_node_is_lost().as_bytes()).expect("memory");
    let whole = gzip.finish().expect("memory");
    let path = dir.path().join("cut.csv.gz");
    fs::write(&path, &whole[..whole.len() / 2]).expect("writable");
    let output = backtest(&[&path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("damaged or cut off"),
        "{}",
        err(&output)
    );
    fs::write(&path, whole).expect("writable");
    assert_eq!(backtest(&[&path]).status.code(), Some(0));
}

#[test]
fn unknown_columns_are_one_warning() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "time,node,gpu,mood,weather\n1700000000,n1,0,good,rain\n1700000001,n1,0,bad,sun\n";
    let trace = write(dir.path(), "t.csv", text);
    let output = backtest(&[&trace]);
    assert_eq!(output.status.code(), Some(0));
    let said = err(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("mood, weather"), "{said}");
}

#[test]
fn the_log_of_nvidia_smi_is_read_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut text = String::from(
        "timestamp, index, uuid, name, temperature.gpu, utilization.gpu [%], utilization.memory [%], memory.used [MiB], \
         memory.total [MiB], power.draw [W], power.limit [W], clocks.current.sm [MHz]\n",
    );
    for second in 0..50 {
        for gpu in 0..2 {
            let _ = writeln!(
                text,
                "2024/07/16 02:30:{second:02}.00{gpu}, {gpu}, GPU-{gpu}, NVIDIA H100 80GB HBM3, 47, 98 %, 38 %, 59648 MiB, 81559 MiB, 414.90 W, [N/A], 1980 MHz"
            );
        }
    }
    let trace = write(dir.path(), "smi.log", &text);
    let output = backtest(&[&trace]);
    assert_eq!(
        (output.status.code(), err(&output)),
        (Some(0), String::new())
    );
    assert!(
        out(&output).contains("100 rows of 2 GPUs on 1 nodes"),
        "{}",
        out(&output)
    );
}

#[test]
fn a_rules_file_decides_and_a_bad_one_is_refused_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let trace = write(dir.path(), "lost.csv", &a_node_is_lost());
    let off = write(
        dir.path(),
        "off.yaml",
        "rules:\n  node_lost:\n    enabled: false\n",
    );
    let output = backtest(&[&trace, &"--rules", &off, &"--format", &"jsonl"]);
    assert_eq!(
        (output.status.code(), out(&output)),
        (Some(0), String::new()),
        "{}",
        err(&output)
    );
    let bad = write(
        dir.path(),
        "bad.yaml",
        "rules:\n  node_lost:\n    enabled: perhaps\n",
    );
    let output = backtest(&[&trace, &"--rules", &bad]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("bad.yaml, line 3"),
        "{}",
        err(&output)
    );
}
