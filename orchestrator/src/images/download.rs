//! Fetching a disk by http or https into a file, from which it is then imported like any other.
//!
//! It is the process of whoever asks that fetches, never one with more rights. The bytes go into a file of a private
//! directory, with the server's validator for the state of its file beside them; a later call continues there, if the
//! server says by that validator that its file is still the same. Nothing here knows what the bytes should be: that is
//! seen when they are imported.

mod address;
mod answer;
mod error;
mod part;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

pub use self::{
    address::{Address, AddressError},
    error::DownloadError,
    part::{Part, directory},
};
use self::{
    answer::{Answer, Kept},
    part::io_error,
};
use crate::{connector, files};

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// What nobody has come back for within this time is removed by the next download.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Free space is checked at again after so many bytes.
const SPACE_CHECK_EVERY: u64 = 64 << 20;

/// What a download may take.
#[derive(Debug, Clone)]
pub struct DownloadLimits {
    /// Until a connection is made.
    pub connect: Duration,
    /// Without a single byte.
    pub idle: Duration,
    /// Largest file, in bytes.
    pub largest: u64,
    /// Free space that is left to others, in bytes.
    pub reserve: u64,
}

impl Default for DownloadLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            largest: 16 << 40,
            reserve: 256 << 20,
        }
    }
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are there.
    pub bytes: u64,
    /// All, if the server says how many.
    pub total: Option<u64>,
}

/// Fetches the file of an address into a file of this directory, or what an earlier call left to be fetched.
///
/// # Errors
/// When it is not there whole. What is there is continued by the next call, unless the error says that it cannot be
/// right; nothing ever reads it before.
pub async fn fetch(
    address: &Address,
    dir: &Path,
    limits: &DownloadLimits,
    progress: &mut dyn FnMut(Progress),
) -> Result<Part, DownloadError> {
    let name = address.part_name();
    part::forget_abandoned(dir, &name, ABANDONED)?;
    let Some(mut part) = Part::open(dir, &name)? else {
        let address = address.clone();
        return Err(DownloadError::Busy { address });
    };
    match fill(&mut part, address, dir, limits, progress).await {
        Ok(()) => Ok(part),
        Err(error) => {
            if matches!(error, DownloadError::TooLarge { .. }) || part.bytes()? == 0 {
                part.discard()?;
            }
            Err(error)
        }
    }
}

async fn fill(
    part: &mut Part,
    address: &Address,
    dir: &Path,
    limits: &DownloadLimits,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), DownloadError> {
    let kept = part.kept()?;
    let mut asked = ask(address, kept.as_ref(), limits).await?;
    if asked.answer == Answer::StartOver {
        asked = ask(address, None, limits).await?;
    }
    let Asked {
        answer,
        status,
        mut body,
    } = asked;
    let total = match answer {
        Answer::Complete => {
            let bytes = part.bytes()?;
            let total = Some(bytes);
            progress(Progress { bytes, total });
            return Ok(());
        }
        Answer::Rest { total } => {
            part.go_on(part.bytes()?)?;
            total
        }
        Answer::Whole { total, validator } => {
            part.begin(validator.as_ref())?;
            total
        }
        Answer::StartOver | Answer::Elsewhere(_) | Answer::Refused => {
            let address = address.clone();
            return Err(DownloadError::Refused { address, status });
        }
    };
    let mut bytes = part.bytes()?;
    progress(Progress { bytes, total });
    let largest = total.unwrap_or(u64::MAX).min(limits.largest);
    let too_large = || DownloadError::TooLarge {
        address: address.clone(),
        largest,
    };
    if total.is_some_and(|total| total > largest) {
        return Err(too_large());
    }
    room(address, dir, limits, total.map_or(0, |total| total - bytes))?;
    let mut checked = bytes;
    loop {
        let frame = timeout(limits.idle, body.frame()).await;
        let frame = frame.map_err(|_| DownloadError::Idle {
            address: address.clone(),
            idle: limits.idle,
            bytes,
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|source| DownloadError::Broken {
            address: address.clone(),
            bytes,
            source,
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let more = data.len() as u64;
        if more > largest.saturating_sub(bytes) {
            return Err(too_large());
        }
        if bytes + more - checked >= SPACE_CHECK_EVERY {
            room(address, dir, limits, more)?;
            checked = bytes;
        }
        part.write(&data)?;
        bytes += more;
        progress(Progress { bytes, total });
    }
    match total {
        Some(total) if bytes < total => Err(DownloadError::Short {
            address: address.clone(),
            bytes,
            total,
        }),
        _ => Ok(()),
    }
}

/// Whether so many bytes more may be written.
fn room(address: &Address, dir: &Path, limits: &DownloadLimits, needed: u64) -> Result<(), DownloadError> {
    let free = files::free_bytes(dir).map_err(io_error("read the free space of", dir))?;
    if needed > free.saturating_sub(limits.reserve) {
        return Err(DownloadError::NoRoom {
            address: address.clone(),
            dir: dir.to_owned(),
            needed,
            free,
            reserve: limits.reserve,
        });
    }
    Ok(())
}

/// An answer, understood, and what follows it.
struct Asked {
    answer: Answer,
    status: StatusCode,
    body: Incoming,
}

/// Asks for all of a file, or for what is missing of it, wherever it leads.
async fn ask(address: &Address, kept: Option<&Kept>, limits: &DownloadLimits) -> Result<Asked, DownloadError> {
    let mut at = address.clone();
    for _ in 0..=REDIRECTS {
        let mut request = Request::get(at.uri().clone())
            .header(header::USER_AGENT, concat!("helios-ci/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(kept) = kept {
            request = request
                .header(header::RANGE, format!("bytes={}-", kept.bytes))
                .header(header::IF_RANGE, kept.validator.header());
        }
        let request = request
            .body(Empty::new())
            .map_err(|e| AddressError::NotAUrl(e.to_string()))?;
        let answered = timeout(limits.idle, client(&at, limits)?.request(request)).await;
        let answered = answered.map_err(|_| DownloadError::Idle {
            address: at.clone(),
            idle: limits.idle,
            bytes: kept.map_or(0, |kept| kept.bytes),
        })?;
        let (head, body) = answered
            .map_err(|source| DownloadError::Unreachable {
                address: at.clone(),
                source,
            })?
            .into_parts();
        match answer::read(head.status, &head.headers, body.size_hint().exact(), kept) {
            Answer::Elsewhere(location) => at = at.follow(&location)?,
            answer => {
                return Ok(Asked {
                    answer,
                    status: head.status,
                    body,
                });
            }
        }
    }
    let address = address.clone();
    Err(DownloadError::Redirects { address })
}

type Http = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A client for one request. No proxy variable is read, as nowhere in this project.
fn client(address: &Address, limits: &DownloadLimits) -> Result<Http, DownloadError> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(limits.connect));
    let connector = connector::tls(connector, address.is_https()).map_err(DownloadError::NoRoots)?;
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}
