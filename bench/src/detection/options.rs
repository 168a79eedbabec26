//! What may be said on the command line behind `bench detection`.

use anyhow::{Context, Result, bail};

/// How much is run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// GPU-days that there are to be in the end, and how many of them at 1 s; `None`: some more.
    pub normal_days: Option<f64>,
    pub at_1s: f64,
    /// Forgets the normal days of earlier sources.
    pub fresh: bool,
    /// Runs normal days and nothing else.
    pub only_normal: bool,
    /// Scores a folder of labelled traces and nothing else.
    pub score: Option<std::path::PathBuf>,
}

impl Options {
    /// Reads them.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || -> Result<f64> {
                let text = words
                    .next()
                    .with_context(|| format!("{word} needs a number"))?;
                text.parse()
                    .with_context(|| format!("{word} {text}: not a number"))
            };
            match *word {
                "--normal-days" => options.normal_days = Some(number()?),
                "--at-1s" => options.at_1s = number()?,
                "--fresh" => options.fresh = true,
                "--score" => options.score = words.next().map(Into::into),
                "--only-normal" => options.only_normal = true,
                _ => bail!(
                    "{word}: bench detection knows --normal-days N, --at-1s N, --fresh, --only-normal, --score DIR"
                ),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_mistakes_are_named() {
        let options = Options::parse(&["--normal-days", "150000", "--at-1s", "10000"]).unwrap();
        assert_eq!(
            (options.normal_days, options.at_1s),
            (Some(150_000.0), 10_000.0)
        );
        let error = Options::parse(&["--at-1s", "many"]).unwrap_err();
        assert_eq!(error.to_string(), "--at-1s many: not a number");
        assert!(Options::parse(&["--days"]).is_err());
    }
}
