//! `entrenar backtest`: what the rules would have said of traces, or of what an aggregator has stored.
//!
//! Every trace has a thread that reads and one that judges, and as many traces go at once as there are cores. What comes
//! out depends on the traces and the rules alone.

mod output;
mod progress;
mod read;
mod run;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use entrenar_aggregator::andon::RuleBook;

use crate::remote::{Access, Download, Part, Refused};
use crate::service::fail;
use read::Input;
use run::Judged;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Traces: .csv, .csv.gz, .csv.zst, or logs of `nvidia-smi --query-gpu=… --format=csv -l 1`.
    #[arg(required_unless_present = "url", value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Judge what this aggregator has stored, instead of traces.
    #[arg(long, value_name = "URL", conflicts_with = "traces", requires = "from")]
    url: Option<String>,
    /// From when on, with --url: RFC 3339, unix seconds, or an offset such as -7d.
    #[arg(
        long,
        value_name = "TIME",
        requires = "url",
        allow_hyphen_values = true
    )]
    from: Option<String>,
    /// Until when, with --url; without it until now.
    #[arg(
        long,
        value_name = "TIME",
        requires = "url",
        allow_hyphen_values = true
    )]
    to: Option<String>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    access: Access,
    /// Rules to judge by; without it the built-in ones.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// How incidents are written on standard output.
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
    /// Write the incidents of each trace into DIR/NAME.jsonl, too.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Jsonl,
}

/// Bad usage, or a trace that is none.
const UNUSABLE: u8 = 2;

pub(crate) fn run(args: &Args) -> ExitCode {
    let prepared = rules(args.rules.as_deref()).and_then(|rules| {
        names(&args.traces, args.out.as_deref())?;
        Ok(rules)
    });
    let rules = match prepared {
        Ok(rules) => rules,
        Err(error) => return fail(&error, ExitCode::from(UNUSABLE)),
    };
    let inputs = match inputs(args) {
        Ok(inputs) => inputs,
        Err(refused) => return refused.fail(),
    };
    let paths: Vec<PathBuf> = inputs.iter().map(|input| input.path().to_owned()).collect();
    let results = run::all(inputs, &rules);
    let mut worst = 0;
    let mut judged = Vec::new();
    for (path, result) in paths.iter().zip(results) {
        match result {
            Ok(trace) => judged.push(trace),
            Err(error) => {
                let is_unusable = error.is_unusable();
                let error = anyhow::Error::new(error).context(path.display().to_string());
                fail(&error, ExitCode::FAILURE);
                worst = worst.max(if is_unusable { UNUSABLE } else { 1 });
            }
        }
    }
    match publish(args, &judged) {
        // Whoever reads has heard enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(worst),
        Err(error) => fail(&error, ExitCode::FAILURE),
        Ok(()) => ExitCode::from(worst),
    }
}

/// The traces; or the aggregator's history, whose answer has begun.
fn inputs(args: &Args) -> Result<Vec<Input>, Refused> {
    let Some(url) = &args.url else {
        let files = args.traces.iter().cloned();
        return Ok(files.map(Input::File).collect());
    };
    let from = args.from.as_deref().unwrap_or("-1h");
    let to = args.to.as_deref().unwrap_or("now");
    let download = Download::start(url, &args.access, (from, to), &args.part)?;
    Ok(vec![Input::Remote(url.into(), Box::new(download))])
}

fn rules(path: Option<&Path>) -> Result<RuleBook> {
    let Some(path) = path else {
        return Ok(RuleBook::default());
    };
    let text =
        fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(RuleBook::parse(&text, &path.display().to_string())?)
}

/// Two traces of one name would be written into one file.
fn names(traces: &[PathBuf], out: Option<&Path>) -> Result<()> {
    let mut seen = BTreeMap::new();
    for path in traces.iter().filter(|_| out.is_some()) {
        if let Some(other) = seen.insert(output::name(path), path) {
            anyhow::bail!(
                "--out: {} and {} have one name: rename one, or run them one by one",
                other.display(),
                path.display()
            );
        }
    }
    Ok(())
}

fn publish(args: &Args, judged: &[Judged]) -> Result<()> {
    if let Some(dir) = &args.out {
        fs::create_dir_all(dir).with_context(|| format!("could not make {}", dir.display()))?;
        for trace in judged {
            let path = dir.join(format!("{}.jsonl", output::name(&trace.path)));
            write_file(&path, trace)
                .with_context(|| format!("could not write {}", path.display()))?;
        }
    }
    let mut stdout = BufWriter::new(io::stdout().lock());
    let is_one = args.url.is_some() || args.traces.len() == 1;
    match args.format {
        Format::Jsonl if args.out.is_some() => {}
        Format::Jsonl => {
            for trace in judged {
                output::write(&mut stdout, trace, !is_one)?;
            }
        }
        Format::Text => {
            for trace in judged {
                text::write(&mut stdout, trace)?;
            }
            if !is_one {
                text::write_sum(&mut stdout, judged)?;
            }
        }
    }
    stdout.flush()?;
    Ok(())
}

fn write_file(path: &Path, trace: &Judged) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    output::write(&mut file, trace, false)?;
    file.flush()?;
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
