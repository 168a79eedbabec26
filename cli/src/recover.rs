//! `entrenar recover`: a new database of what is readable in a damaged one.

use std::path::PathBuf;
use std::process::ExitCode;

use entrenar_aggregator::store::sqlite::{self, Salvaged};

use crate::backup::{block_on, sqlite_path};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The damaged database: sqlite:PATH. It is left as it is; no aggregator may have it open.
    #[arg(long, value_name = "URL")]
    database_url: String,
    /// The file to write; it must not exist.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let Some(path) = sqlite_path(&args.database_url) else {
        eprintln!("error: --database-url: give sqlite:PATH");
        return ExitCode::from(2);
    };
    match block_on(sqlite::recover(path, &args.output)) {
        Ok(salvaged) => {
            salvaged.iter().for_each(say);
            println!("{}", args.output.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(salvaged: &Salvaged) {
    let (table, n_kept) = (salvaged.table, salvaged.n_kept);
    println!("{table}: {n_kept} rows kept");
    for lost in &salvaged.lost {
        println!("{table}: lost: {lost}");
    }
}
