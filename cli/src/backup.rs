//! `entrenar backup`: one moment of the database, whole, while the aggregator goes on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use entrenar_aggregator::store::postgres::Address;
use entrenar_aggregator::store::sqlite;

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
    let Some(path) = args
        .database_url
        .strip_prefix("sqlite:")
        .filter(|p| !p.is_empty())
    else {
        eprintln!("error: --database-url: give sqlite:PATH");
        return ExitCode::from(2);
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(sqlite::backup(Path::new(path), &args.output)) {
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
