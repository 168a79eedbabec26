//! `entrenar rules`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use entrenar_aggregator::andon::RuleBook;
use entrenar_aggregator::andon::rules::drill::{self, Outcome};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Validate a rules file: says the line and the reason of all that is wrong.
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Run tests of rules: series go in, raised and cleared cords are expected.
    Test {
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

/// Exit status of a file that cannot be used.
const BAD_FILE: u8 = 2;

pub(crate) fn run(command: &Command) -> ExitCode {
    let mut out = io::stdout().lock();
    let status = match command {
        Command::Check { file } => check(file, &mut out),
        Command::Test { files } => test(files, &mut out),
    };
    // A reader that has gone wants to hear no more.
    ExitCode::from(status.unwrap_or(1))
}

fn check(file: &Path, out: &mut impl Write) -> io::Result<u8> {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(1);
        }
    };
    let rules = match RuleBook::parse(&text, &file.display().to_string()) {
        Ok(rules) => rules,
        Err(error) => {
            for mistake in error.to_string().lines() {
                eprintln!("error: {mistake}");
            }
            return Ok(BAD_FILE);
        }
    };
    writeln!(out, "{}: ok", file.display())?;
    for rule in rules.summaries() {
        let on = match (rule.enabled, rule.shadow) {
            (false, _) => "off",
            (true, true) => "on trial",
            (true, false) => "on",
        };
        let elsewhere = match rule.overrides {
            0 => String::new(),
            1 => ", otherwise in 1 override".to_owned(),
            n => format!(", otherwise in {n} overrides"),
        };
        let (name, severity) = (&rule.rule.0, rule.severity.name());
        writeln!(out, "  {name:<24} {severity:<8} {on}{elsewhere}")?;
    }
    Ok(0)
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file)
        .map_err(|error| format!("could not read {}: {error}", file.display()))
}

/// 0: all passed; 1: some failed, or a file could not be read; 2: a file is wrong.
fn test(files: &[PathBuf], out: &mut impl Write) -> io::Result<u8> {
    let mut worst = 0;
    for file in files {
        worst = worst.max(test_one(file, out)?);
    }
    Ok(worst)
}

fn test_one(file: &Path, out: &mut impl Write) -> io::Result<u8> {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(1);
        }
    };
    let beside = |name: &str| read(&file.parent().unwrap_or(Path::new("")).join(name));
    let tests = match drill::read(&text, &file.display().to_string(), beside) {
        Ok(tests) => tests,
        Err(error) => {
            for mistake in error.to_string().lines() {
                eprintln!("error: {mistake}");
            }
            return Ok(BAD_FILE);
        }
    };
    writeln!(out, "{}", file.display())?;
    let mut n_failed = 0;
    for test in &tests {
        match test.run() {
            Outcome::Passed => writeln!(out, "  ok    {}", test.name)?,
            Outcome::Failed { expected, got } => {
                n_failed += 1;
                writeln!(out, "  FAIL  {}", test.name)?;
                list(out, "expected", &expected)?;
                list(out, "got", &got)?;
            }
        }
    }
    writeln!(
        out,
        "  {} passed, {n_failed} failed",
        tests.len() - n_failed
    )?;
    Ok(u8::from(n_failed > 0))
}

fn list(out: &mut impl Write, what: &str, lines: &[String]) -> io::Result<()> {
    if lines.is_empty() {
        return writeln!(out, "        {what}: nothing");
    }
    writeln!(out, "        {what}:")?;
    for line in lines {
        writeln!(out, "          {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    const TESTS: &str = "
rules_file: rules.yaml
tests:
  - name: it is warm
    input: [{ node: n1, series: { temperature_celsius: 60 80x2 } }]
    expect: [{ at: SECONDS, raised: warm, on: n1/0 }]
";

    #[test]
    fn failing_tests_say_what_was_expected_and_what_was_got() {
        let dir = tempfile::tempdir().expect("a directory");
        let rules = "custom: [{ name: warm, threshold: temperature_celsius, above: 70 }]";
        written(dir.path(), "rules.yaml", rules);
        let right = written(dir.path(), "right.yaml", &TESTS.replace("SECONDS", "1s"));
        let wrong = written(dir.path(), "wrong.yaml", &TESTS.replace("SECONDS", "2s"));
        let mut out = Vec::new();
        assert_eq!(
            test(std::slice::from_ref(&right), &mut out).expect("written"),
            0
        );
        assert_eq!(
            test(&[wrong.clone(), right.clone()], &mut out).expect("written"),
            1
        );
        let said = String::from_utf8(out).expect("text");
        let (right, wrong) = (right.display(), wrong.display());
        assert_eq!(
            said,
            format!(
                "{right}\n  ok    it is warm\n  1 passed, 0 failed\n\
                 {wrong}\n  FAIL  it is warm\n        expected:\n          2s raised warm on n1/0\n        got:\n          \
                 1s raised warm on n1/0 (warning)\n  0 passed, 1 failed\n\
                 {right}\n  ok    it is warm\n  1 passed, 0 failed\n"
            )
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_has_its_own_status() {
        let dir = tempfile::tempdir().expect("a directory");
        let bad = written(dir.path(), "bad.yaml", "rules: { xidd: {} }");
        let mut out = Vec::new();
        assert_eq!(check(&bad, &mut out).expect("written"), BAD_FILE);
        assert_eq!(test_one(&bad, &mut out).expect("written"), BAD_FILE);
        assert_eq!(
            check(&dir.path().join("none"), &mut out).expect("written"),
            1
        );
        let good = written(dir.path(), "good.yaml", "rules: { xid: { shadow: true } }");
        assert_eq!(check(&good, &mut out).expect("written"), 0);
        let said = String::from_utf8(out).expect("text");
        assert!(
            said.contains("  xid                      warning  on trial\n"),
            "{said}"
        );
    }
}
