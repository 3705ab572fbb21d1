//! Weights from the Hugging Face Hub, into the cache that all its programs share.
//!
//! A file is looked up first ([`Hub::look_up`]): the answer says the commit, the size and the hash. What is then fetched
//! ([`Hub::fetch`]) goes into `blobs/HASH.incomplete`, from where a later call goes on; it is compared with size and hash, its
//! header is read, and only then it gets its name. Both take the variables of the Hub's own programs.

mod store;
mod transfer;

use std::path::PathBuf;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::hub_cache::{HubCache, is_commit};
use crate::{Error, Result};

/// The Hub itself.
const ENDPOINT: &str = "https://huggingface.co";
/// Redirections that are followed.
const MAX_REDIRECTS: u32 = 5;
/// A server that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// Time to make a connection.
const CONNECT: Duration = Duration::from_secs(20);

/// The Hub, or a mirror of it, and the cache on this machine.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    offline: bool,
    cache: HubCache,
    agent: Agent,
}

/// What the Hub says about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// `organisation/name`.
    pub repository: String,
    /// The file in it.
    pub file: String,
    /// The commit that `main` is now.
    pub commit: String,
    /// The name of its content in the cache: the SHA-256 of a large file.
    pub etag: String,
    /// Its size.
    pub bytes: u64,
}

impl Remote {
    /// The SHA-256 of the content in hexadecimal, if the Hub says it.
    pub fn sha256(&self) -> Option<&str> {
        let is_hash = self.etag.len() == 64 && self.etag.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash.then_some(self.etag.as_str())
    }
}

impl Hub {
    /// The Hub as these variables say: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, those of
    /// [`HubCache::locate`], and `SSL_CERT_FILE` with the certificates of authorities to trust. A proxy is taken from
    /// `HTTPS_PROXY` and its like by the transport.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no place for the cache or an address is none; [`Error::Io`] or [`Error::Invalid`] when
    /// the certificates cannot be read.
    pub fn of_environment() -> Result<Self> {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
        let cache = HubCache::of_environment().ok_or_else(|| {
            Error::invalid("HF_HOME", "nothing, and no home folder", "a folder for the cache")
        })?;
        let offline = text("HF_HUB_OFFLINE").is_some_and(|text| {
            matches!(text.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
        });
        let certificates = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        Self::new(
            text("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT),
            text("HF_TOKEN"),
            offline,
            cache,
            certificates.filter(|path| !path.as_os_str().is_empty()),
        )
    }

    /// The Hub at an address (`https://…`).
    ///
    /// # Errors
    /// As [`Hub::of_environment`].
    pub fn new(
        endpoint: &str,
        token: Option<String>,
        offline: bool,
        cache: HubCache,
        certificates: Option<PathBuf>,
    ) -> Result<Self> {
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !(endpoint.starts_with("https://") || endpoint.starts_with("http://")) {
            return Err(Error::invalid("HF_ENDPOINT", endpoint, "an address: https://…"));
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = certificates {
            tls = tls.root_certs(read_certificates(&path)?);
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(MAX_REDIRECTS)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("musc/", env!("CARGO_PKG_VERSION")))
            // Bytes as they are stored, whose number and hash are known.
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .tls_config(tls.build())
            .build()
            .new_agent();
        Ok(Self { endpoint, token, offline, cache, agent })
    }

    /// The cache on this machine.
    pub fn cache(&self) -> &HubCache {
        &self.cache
    }

    /// True when no network is to be used.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Asks the Hub for a file's commit, size and hash.
    ///
    /// # Errors
    /// [`Error::Download`] with the address and the reason: offline, no connection, no such file, no access, or an answer that
    /// does not say what is needed.
    pub fn look_up(&self, repository: &str, file: &str) -> Result<Remote> {
        let mut url = self.url(repository, "main", file);
        if self.offline {
            return Err(failed(&url, "HF_HUB_OFFLINE is set, so no network is used"));
        }
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.head(&url).config().max_redirects(0);
            request = request.max_redirects_will_error(false);
            let mut request = request.build();
            // The token is for the Hub alone.
            if let Some(token) = self.token.as_deref().filter(|_| self.is_ours(&url)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let answer = request.call().map_err(|reason| failed(&url, reason))?;
            let redirected = answer.status().is_redirection();
            if redirected && header(&answer, "x-repo-commit").is_none() {
                // A repository under a new name, or a mirror that sends elsewhere.
                let to = header(&answer, "location").unwrap_or_default();
                url = match to.strip_prefix('/') {
                    Some(path) => format!("{}/{path}", origin(&url)),
                    None if to.starts_with("http://") || to.starts_with("https://") => to.into(),
                    None => return Err(failed(&url, "it sends on to no address")),
                };
                continue;
            }
            if !redirected && !answer.status().is_success() {
                return Err(failed(&url, status(&answer)));
            }
            return remote(&answer, repository, file).map_err(|lacks| {
                failed(&url, format!("the answer does not say {lacks}; is it a Hugging Face Hub?"))
            });
        }
        Err(failed(&url, "sent on too many times"))
    }

    fn url(&self, repository: &str, revision: &str, file: &str) -> String {
        format!("{}/{repository}/resolve/{revision}/{file}", self.endpoint)
    }

    fn is_ours(&self, url: &str) -> bool {
        origin(url) == origin(&self.endpoint)
    }
}

/// `https://host:port` of an address.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(start..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| start + at);
    url.get(..end).unwrap_or(url)
}

/// The facts in an answer, or which one is missing.
fn remote(answer: &Response<Body>, repository: &str, file: &str) -> Result<Remote, &'static str> {
    let commit = header(answer, "x-repo-commit").filter(|commit| is_commit(commit));
    let etag = header(answer, "x-linked-etag").or_else(|| header(answer, "etag"));
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
    // It becomes a file's name.
    let safe = |etag: &&str| {
        let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=128).contains(&etag.len()) && etag.bytes().all(letters)
    };
    let own = || header(answer, "content-length").filter(|_| answer.status().is_success());
    let bytes = header(answer, "x-linked-size").or_else(own).and_then(|size| size.parse().ok());
    Ok(Remote {
        repository: repository.into(),
        file: file.into(),
        commit: commit.ok_or("the commit")?.into(),
        etag: etag.filter(safe).ok_or("the file's hash")?.into(),
        bytes: bytes.ok_or("the file's size")?,
    })
}

fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name).and_then(|value| value.to_str().ok())
}

/// What an unwanted status means.
fn status(answer: &Response<Body>) -> String {
    let meaning = match answer.status().as_u16() {
        401 | 403 => ": no access; HF_TOKEN gives it for repositories that need it",
        404 => ": no such repository or file",
        429 => ": too many requests; try again later",
        500.. => ": the server has a problem; try again later",
        _ => "",
    };
    format!("HTTP status {}{meaning}", answer.status().as_u16())
}

fn failed(url: &str, reason: impl std::fmt::Display) -> Error {
    Error::Download { url: url.to_owned(), reason: reason.to_string() }
}

fn read_certificates(path: &std::path::Path) -> Result<RootCerts> {
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let found = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(reason) => Some(Err(reason)),
    });
    let wrong = |found: String| {
        let found = format!("{}: {found}", path.display());
        Error::invalid("SSL_CERT_FILE", found, "a file of certificates in PEM form")
    };
    let found: Vec<Certificate<'static>> =
        found.collect::<Result<_, _>>().map_err(|reason| wrong(reason.to_string()))?;
    if found.is_empty() {
        return Err(wrong("no certificate".into()));
    }
    Ok(RootCerts::new_with_certs(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_what_comes_before_the_path() {
        assert_eq!(origin("https://a.b:1/c/d"), "https://a.b:1");
        assert_eq!(origin("https://a.b"), "https://a.b");
        assert_eq!(origin("a"), "a");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let new = |endpoint: &str, certificates: Option<PathBuf>| {
            Hub::new(endpoint, None, false, HubCache::new("cache"), certificates)
                .unwrap_err()
                .to_string()
        };
        assert!(new("huggingface.co", None).contains("HF_ENDPOINT"));
        assert!(new(ENDPOINT, Some("no/such.pem".into())).contains("no/such.pem"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bare.pem");
        std::fs::write(&path, "nothing").unwrap();
        assert!(new(ENDPOINT, Some(path)).contains("no certificate"));
    }
}
