//! `entrenar record`: what an aggregator has stored, as a trace.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;

use crate::remote::{Access, Download, Part};
use crate::service::fail;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The aggregator's address, like http://127.0.0.1:8470.
    #[arg(long, value_name = "URL")]
    url: String,
    /// From when on: RFC 3339, unix seconds, or an offset such as -1h.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: String,
    /// Until when, included.
    #[arg(
        long,
        default_value = "now",
        value_name = "TIME",
        allow_hyphen_values = true
    )]
    to: String,
    #[command(flatten)]
    part: Part,
    /// The trace to write: .csv, .csv.gz, .csv.zst, or - for standard output.
    #[arg(short, long, value_name = "TRACE")]
    output: PathBuf,
    #[command(flatten)]
    access: Access,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let range = (args.from.as_str(), args.to.as_str());
    let download = match Download::start(&args.url, &args.access, range, &args.part) {
        Ok(download) => download,
        Err(refused) => return refused.fail(),
    };
    match record(download, &args.output) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error, ExitCode::FAILURE),
    }
}

fn record(download: Download, output: &Path) -> Result<()> {
    if output == Path::new("-") {
        let mut stdout = io::stdout().lock();
        return copy(MultiGzDecoder::new(download), &mut stdout);
    }
    // Under another name until all of it is there: half a trace must not be taken for a whole one.
    let partial = partial(output);
    let written = write(download, &partial, output);
    if let Err(error) = written {
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    fs::rename(&partial, output).with_context(|| format!("could not write {}", output.display()))
}

fn partial(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn write(download: Download, partial: &Path, output: &Path) -> Result<()> {
    let create = || {
        let file = File::create(partial);
        file.with_context(|| format!("could not make {}", partial.display()))
    };
    let mut file = BufWriter::new(create()?);
    match output.extension().and_then(|end| end.to_str()) {
        // As it comes.
        Some("gz") => copy(download, &mut file)?,
        Some("zst") => {
            let mut packed = zstd::Encoder::new(&mut file, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            copy(MultiGzDecoder::new(download), &mut packed)?;
            packed.finish()?;
        }
        _ => copy(MultiGzDecoder::new(download), &mut file)?,
    }
    file.flush()?;
    Ok(())
}

fn copy(mut from: impl Read, to: &mut impl Write) -> Result<()> {
    io::copy(&mut from, to).context("the trace was broken off; what came of it was dropped")?;
    to.flush()?;
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
