//! `entrenar backup`: one moment of the database, whole, while the aggregator goes on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use entrenar_aggregator::store::postgres::Address;
use entrenar_aggregator::store::{StoreResult, sqlite};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The database to copy: sqlite:PATH.
    #[arg(long, value_name = "URL")]
    database_url: String,
    /// The file to write; it must not exist.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    if Address::is_meant_by(&args.database_url) {
        eprintln!(
            "error: --database-url: Postgres is backed up by its own tools, for example `pg_dump --format=custom --file={} URL`; \
             pg_basebackup and WAL archiving lose less (docs/postgres.md)",
            args.output.display()
        );
        return ExitCode::from(2);
    }
    let Some(path) = sqlite_path(&args.database_url) else {
        eprintln!("error: --database-url: give sqlite:PATH");
        return ExitCode::from(2);
    };
    match block_on(sqlite::backup(path, &args.output)) {
        Ok(()) => {
            println!("{}", args.output.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Of `sqlite:PATH`.
pub(crate) fn sqlite_path(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite:").filter(|p| !p.is_empty())?;
    Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
}

/// Runs something that is all there is to do.
pub(crate) fn block_on<T>(work: impl Future<Output = StoreResult<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work)?)
}
