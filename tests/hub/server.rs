//! A server of one repository: as the Hugging Face Hub answers, or wrong in one way.

#![allow(dead_code, reason = "two test programs take what each needs of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the server behaves.
#[derive(Clone)]
pub struct Conduct {
    /// The file's bytes.
    pub content: Vec<u8>,
    /// The hash in `X-Linked-Etag`; none leaves it out.
    pub etag: Option<String>,
    /// The size in `X-Linked-Size`.
    pub size: usize,
    /// Status of every answer, if it is not as it should be.
    pub status: Option<u16>,
    /// Answers 206 to a range.
    pub ranges: bool,
    /// Each connection ends after so many bytes of the file.
    pub cut_after: Option<usize>,
    /// Of the next connections, so many are closed without an answer to GET.
    pub refuse: usize,
    /// HEAD is sent on to this path once.
    pub moved: Option<String>,
    /// GET is sent on to this address.
    pub storage: Option<String>,
    /// The body has no length in front.
    pub unknown_length: bool,
}

impl Conduct {
    pub fn good(content: &[u8]) -> Self {
        Self {
            content: content.to_vec(),
            etag: Some(sha256(content)),
            size: content.len(),
            status: None,
            ranges: true,
            cut_after: None,
            refuse: 0,
            moved: None,
            storage: None,
            unknown_length: false,
        }
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    musc::model::sha256_of_bytes(bytes)
}

/// The server, which ends when dropped.
pub struct Server {
    port: u16,
    conduct: Arc<Mutex<Conduct>>,
    /// Method, path, range and authorization of each request.
    requests: Arc<Mutex<Vec<[String; 4]>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let conduct = Arc::new(Mutex::new(conduct));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (shared, log) = (Arc::clone(&conduct), Arc::clone(&requests));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                // One request a connection; a client that leaves is no matter here.
                match answer(stream, &shared, &log) {
                    Ok(true) => (),
                    Ok(false) => return,
                    Err(_) => (),
                }
            }
        });
        Self { port, conduct, requests, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn conduct(&self, change: impl FnOnce(&mut Conduct)) {
        change(&mut self.conduct.lock().unwrap());
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<[String; 4]> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// The ranges asked for since the last call, an empty one for the whole file.
    pub fn ranges(&self) -> Vec<String> {
        let gets = self.requests().into_iter().filter(|request| request[0] == "GET");
        gets.map(|[_, _, range, _]| range).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.write_all(b"QUIT / HTTP/1.1\r\n\r\n");
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers one request; false when asked to end.
fn answer(
    mut stream: TcpStream,
    conduct: &Mutex<Conduct>,
    log: &Mutex<Vec<[String; 4]>>,
) -> std::io::Result<bool> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone()?.take(1 << 16));
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(true);
        }
    }
    let mut words = head.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if method == "QUIT" {
        return Ok(false);
    }
    let field = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim()).to_string()
    };
    let (range, token) = (field("range:"), field("authorization:"));
    log.lock().unwrap().push([method.into(), path.into(), range.clone(), token]);
    let mut shared = conduct.lock().unwrap();
    if method == "GET" && shared.refuse > 0 {
        shared.refuse -= 1;
        return Ok(true);
    }
    let moved = if method == "HEAD" { shared.moved.take() } else { None };
    let conduct = shared.clone();
    drop(shared);
    if let Some(status) = conduct.status {
        write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(true);
    }
    if let Some(to) = moved {
        write!(
            stream,
            "HTTP/1.1 307 Moved\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        return Ok(true);
    }
    if method == "HEAD" {
        let etag = conduct.etag.map(|etag| format!("X-Linked-Etag: \"{etag}\"\r\n"));
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nX-Repo-Commit: {COMMIT}\r\n{}X-Linked-Size: {}\r\nLocation: http://127.0.0.1:1/elsewhere\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            etag.unwrap_or_default(),
            conduct.size
        )?;
        return Ok(true);
    }
    if let Some(to) = conduct.storage.filter(|_| path.contains("/resolve/")) {
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?;
        return Ok(true);
    }
    let all = conduct.content.len();
    let from = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let from: usize = from.filter(|_| conduct.ranges).map_or(0, |from| from.parse().unwrap());
    let part = &conduct.content[from.min(all)..];
    let length = format!("Content-Length: {}\r\n", part.len());
    let length = if conduct.unknown_length { "" } else { &length };
    if conduct.ranges && !range.is_empty() {
        let status = if from < all { "206 Partial Content" } else { "416 Range Not Satisfiable" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Range: bytes {from}-{}/{all}\r\n", all - 1)?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(stream, "{length}Connection: close\r\n\r\n")?;
    let until = conduct.cut_after.unwrap_or(part.len()).min(part.len());
    stream.write_all(&part[..until])?;
    Ok(true)
}

/// All files below a folder, relative, sorted.
pub fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(here) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&here) else { continue };
        for entry in entries {
            let path = entry.expect("entry").path();
            match path.is_dir() {
                true => left.push(path),
                false => {
                    found.push(path.strip_prefix(folder).expect("below").display().to_string())
                }
            }
        }
    }
    found.sort();
    found
}
