//! The file that `image import` was given an address of.

use std::{
    io::IsTerminal,
    path::Path,
    time::{Duration, Instant},
};

use miette::miette;

use crate::{
    cli::report,
    config::Config,
    images::download::{self, Address, DownloadLimits, Part, Progress},
};

/// A person is shown at least so often that it goes on.
const EVERY: Duration = Duration::from_secs(10);
/// And after so many percent.
const STEP: u128 = 5;

/// A file that was fetched, nobody else's as long as this lives.
pub(in crate::cli) struct Fetched {
    part: Part,
    from: Address,
}

impl Fetched {
    /// Fetches it.
    pub(in crate::cli) async fn new(config: &Config, from: Address) -> miette::Result<Self> {
        let dir = download::directory(&config.data_dir).map_err(report)?;
        let mut pace = Pace::new(std::io::stderr().is_terminal());
        let mut show_progress = |progress| {
            if let Some(line) = pace.line(progress, Instant::now()) {
                eprintln!("{from}: {line}");
            }
        };
        let part = download::fetch(&from, &dir, &DownloadLimits::default(), &mut show_progress).await;
        let part = part.map_err(report)?;
        eprintln!(
            "{from}: {} are here, they are being imported",
            mib(part.bytes().map_err(report)?)
        );
        Ok(Self { part, from })
    }

    /// Where it is.
    pub(in crate::cli) fn path(&self) -> &Path {
        self.part.path()
    }

    /// After its import: removes it when it was imported or can never be; otherwise the next import needs no download.
    pub(in crate::cli) fn settle<T, E>(
        self,
        imported: Result<T, E>,
        wrong: impl Fn(&E) -> Option<String>,
    ) -> miette::Result<T>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        match imported {
            Ok(done) => {
                self.part.discard().map_err(report)?;
                Ok(done)
            }
            Err(error) => match wrong(&error) {
                Some(what) => {
                    self.part.discard().map_err(report)?;
                    Err(miette!(
                        help =
                            "compare the address and the digest with what its publisher says, and repeat the command",
                        "{} did not give the expected file: {what}; it was removed, and nothing was imported",
                        self.from
                    ))
                }
                None => {
                    let kept = self.part.path().display();
                    eprintln!("{kept} is kept: the same command continues with it, or remove it");
                    Err(report(error))
                }
            },
        }
    }
}

/// Says how far a download is, not too often.
struct Pace {
    terminal: bool,
    last: Option<(Instant, Progress)>,
}

impl Pace {
    fn new(terminal: bool) -> Self {
        Self { terminal, last: None }
    }

    fn line(&mut self, now: Progress, at: Instant) -> Option<String> {
        let of = now
            .total
            .map_or_else(String::new, |total| format!(" of {}", mib(total)));
        let Some((since, last)) = self.last else {
            self.last = Some((at, now));
            return Some(match now.bytes {
                0 => now
                    .total
                    .map_or("downloading".to_owned(), |total| format!("downloading {}", mib(total))),
                bytes => format!("continuing after {}{of}", mib(bytes)),
            });
        };
        let steps = |progress: Progress| {
            let total = progress.total.filter(|total| *total > 0)?;
            Some(u128::from(progress.bytes) * 100 / (u128::from(total) * STEP))
        };
        if !self.terminal || (steps(now) <= steps(last) && at.duration_since(since) < EVERY) {
            return None;
        }
        self.last = Some((at, now));
        Some(format!("{}{of}", mib(now.bytes)))
    }
}

fn mib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terminal: bool, total: Option<u64>, every: Duration) -> Vec<String> {
        let (mut pace, begin) = (Pace::new(terminal), Instant::now());
        (0..=1000)
            .filter_map(|n| {
                let progress = Progress { bytes: n << 20, total };
                pace.line(progress, begin + every * u32::try_from(n).unwrap())
            })
            .collect()
    }

    #[test]
    fn a_person_hears_every_twentieth_or_every_ten_seconds_and_a_file_the_begin_only() {
        let (quick, total) = (Duration::from_millis(1), Some(1000 << 20));
        let lines = shown(true, total, quick);
        assert_eq!(lines.len(), 21, "{lines:?}");
        assert_eq!(lines[0], "downloading 1000.0 MiB");
        assert_eq!(lines[1], "50.0 MiB of 1000.0 MiB");
        assert_eq!(shown(true, None, quick), ["downloading"]);
        assert_eq!(shown(true, None, Duration::from_secs(1)).len(), 101);
        assert_eq!(shown(true, total, Duration::from_secs(10)).len(), 1001);
        assert_eq!(shown(false, total, Duration::from_secs(10)).len(), 1);
        let mut pace = Pace::new(false);
        let progress = Progress { bytes: 3 << 20, total };
        assert_eq!(
            pace.line(progress, Instant::now()).unwrap(),
            "continuing after 3.0 MiB of 1000.0 MiB"
        );
    }
}
