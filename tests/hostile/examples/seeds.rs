//! Writes what a fuzzer begins with: a folder for each target, a file for each blob.

use std::path::PathBuf;

use entrenar_hostile::TARGETS;

fn main() -> std::io::Result<()> {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds FOLDER");
        std::process::exit(2);
    };
    for target in TARGETS {
        let folder = corpus.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (n, blob) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n}")), blob)?;
        }
    }
    Ok(())
}
