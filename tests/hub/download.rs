//! The library's side: look up, fetch, go on, refuse.

use std::path::{Path, PathBuf};

use musc::model::HubCache;
use musc::model::hub::{Hub, Remote};
use musc::{Error, Result};

use crate::server::{COMMIT, Conduct, Server, files, sha256};

const REPOSITORY: &str = "timm/vit.dino";
const FILE: &str = "model.safetensors";

/// A safetensors file of 100 kB.
fn content() -> Vec<u8> {
    let data: Vec<u8> = (0..100_000u32).map(|at| (at * 31 % 251) as u8).collect();
    let header = r#"{"a":{"dtype":"U8","shape":[100000],"data_offsets":[0,100000]}}"#;
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

fn hub(server: &Server, cache: &Path) -> Hub {
    let cache = HubCache::new(cache);
    Hub::new(&server.address(), Some("secret".into()), false, cache, None).expect("hub")
}

fn get(hub: &Hub) -> Result<(Remote, PathBuf)> {
    let remote = hub.look_up(REPOSITORY, FILE)?;
    let path = hub.fetch(&remote, &())?;
    Ok((remote, path))
}

/// The place of a blob, or of its part, in the cache.
fn blob(cache: &Path, etag: &str, suffix: &str) -> PathBuf {
    cache.join(format!("models--timm--vit.dino/blobs/{etag}{suffix}"))
}

fn message(result: Result<(Remote, PathBuf)>) -> String {
    match result {
        Err(reason @ Error::Download { .. }) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_comes_into_the_layout_that_all_programs_share() {
    let content = content();
    let server = Server::start(Conduct::good(&content));
    let cache = tempfile::tempdir().expect("cache");
    let hub = hub(&server, cache.path());
    let (remote, path) = get(&hub).expect("download");
    let hash = sha256(&content);
    assert_eq!((remote.sha256(), remote.bytes), (Some(hash.as_str()), content.len() as u64));
    let folder = "models--timm--vit.dino";
    assert_eq!(path, cache.path().join(format!("{folder}/snapshots/{COMMIT}/{FILE}")));
    assert_eq!(std::fs::read(&path).expect("read"), content);
    assert_eq!(
        files(cache.path()),
        [
            format!(".locks/{folder}/{hash}.lock"),
            format!("{folder}/blobs/{hash}"),
            format!("{folder}/refs/main"),
            format!("{folder}/snapshots/{COMMIT}/{FILE}"),
        ]
    );
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(&path).expect("link"),
        PathBuf::from(format!("../../blobs/{hash}"))
    );
    assert_eq!(
        std::fs::read_to_string(cache.path().join(folder).join("refs/main")).unwrap(),
        COMMIT
    );
    assert_eq!(hub.cache().find(REPOSITORY, FILE), Some(path));
    let requests = server.requests();
    assert_eq!(
        requests[0][..2],
        ["HEAD".to_string(), format!("/{REPOSITORY}/resolve/main/{FILE}")]
    );
    assert_eq!(
        requests[1][..2],
        ["GET".to_string(), format!("/{REPOSITORY}/resolve/{COMMIT}/{FILE}")]
    );
    assert!(requests.iter().all(|request| request[3] == "Bearer secret"));
    // What is there is not fetched again.
    get(&hub).expect("again");
    assert_eq!(server.ranges(), Vec::<String>::new());
}

#[test]
fn a_download_that_is_cut_off_goes_on() {
    let content = content();
    let server = Server::start(Conduct { cut_after: Some(40_000), ..Conduct::good(&content) });
    let cache = tempfile::tempdir().expect("cache");
    let (_, path) = get(&hub(&server, cache.path())).expect("download");
    assert_eq!(std::fs::read(path).expect("read"), content);
    assert_eq!(server.ranges(), ["", "bytes=40000-", "bytes=80000-"]);
}

#[test]
fn a_later_call_goes_on_where_an_earlier_one_gave_up() {
    let content = content();
    let server = Server::start(Conduct { cut_after: Some(0), ..Conduct::good(&content) });
    let cache = tempfile::tempdir().expect("cache");
    let hub = hub(&server, cache.path());
    let part = blob(cache.path(), &sha256(&content), ".incomplete");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, &content[..60_000]).unwrap();
    let said = message(get(&hub));
    assert!(
        said.contains(&format!("60000 of {} bytes; the same command goes on", content.len())),
        "{said}"
    );
    assert_eq!(server.ranges(), ["bytes=60000-"; 3]);
    assert_eq!(std::fs::metadata(&part).unwrap().len(), 60_000);
    server.conduct(|conduct| {
        conduct.cut_after = None;
        conduct.refuse = 2;
    });
    let (_, path) = get(&hub).expect("download");
    assert_eq!(std::fs::read(path).expect("read"), content);
    assert!(!part.exists());
    assert_eq!(server.ranges(), ["bytes=60000-"; 3]);
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let content = content();
    let server = Server::start(Conduct { ranges: false, ..Conduct::good(&content) });
    let cache = tempfile::tempdir().expect("cache");
    let part = blob(cache.path(), &sha256(&content), ".incomplete");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, b"0123456789").unwrap();
    let (_, path) = get(&hub(&server, cache.path())).expect("download");
    assert_eq!(std::fs::read(path).expect("read"), content);
    assert_eq!(server.ranges(), ["bytes=10-"]);
    // One that ends early each time is given up.
    server.conduct(|conduct| {
        *conduct = Conduct { ranges: false, cut_after: Some(10), ..Conduct::good(&content[..99]) };
    });
    let other = tempfile::tempdir().expect("cache");
    let said = message(get(&hub(&server, other.path())));
    assert!(said.contains("with 10 of 99 bytes"), "{said}");
    assert_eq!(server.ranges().len(), 4);
}

#[test]
fn bytes_that_are_not_those_announced_are_refused_and_not_kept() {
    let content = content();
    let mut changed = content.clone();
    changed[50_000] ^= 1;
    let short = &content[..content.len() - 1];
    let mut headless = content.clone();
    headless[8] = b'!';
    let hash = sha256(&content);
    for (conduct, part) in [
        (
            Conduct { content: changed.clone(), ..Conduct::good(&content) },
            "expected ".to_string() + &hash,
        ),
        (
            Conduct { content: short.to_vec(), ..Conduct::good(&content) },
            format!("found {} bytes, expected {}", short.len(), content.len()),
        ),
        (
            Conduct { size: short.len(), ..Conduct::good(&content) },
            format!("found {} bytes, expected {}", content.len(), short.len()),
        ),
        (
            Conduct { size: short.len(), unknown_length: true, ..Conduct::good(&content) },
            "found more than".to_string(),
        ),
        (Conduct::good(&headless), "its header is not valid".to_string()),
        (Conduct::good(b"<html>not found</html>"), "not a safetensors file".to_string()),
        (
            Conduct { etag: Some("git-etag".into()), ..Conduct::good(&headless) },
            "its header is not valid".to_string(),
        ),
    ] {
        let server = Server::start(conduct);
        let cache = tempfile::tempdir().expect("cache");
        let said = message(get(&hub(&server, cache.path())));
        assert!(
            said.contains(&part) && said.contains("cannot get http://127.0.0.1"),
            "{part} in {said}"
        );
        let kept: Vec<String> =
            files(cache.path()).into_iter().filter(|name| !name.ends_with(".lock")).collect();
        // A wrong length is said before any byte is taken; the empty part is no content.
        let empty = |name: &String| std::fs::metadata(cache.path().join(name)).unwrap().len() == 0;
        assert!(kept.iter().all(empty), "{kept:?}");
    }
}

#[test]
fn a_damaged_part_or_blob_is_fetched_anew() {
    let content = content();
    let server = Server::start(Conduct::good(&content));
    let cache = tempfile::tempdir().expect("cache");
    let hub = hub(&server, cache.path());
    let part = blob(cache.path(), &sha256(&content), ".incomplete");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    // Wrong bytes: told by the hash, thrown away, right the next time.
    std::fs::write(&part, vec![7; 1000]).unwrap();
    assert!(message(get(&hub)).contains("damaged on its way"));
    assert!(!part.exists());
    get(&hub).expect("download");
    // Too many bytes cannot be a beginning.
    std::fs::remove_dir_all(cache.path()).unwrap();
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, vec![7; content.len() + 1]).unwrap();
    get(&hub).expect("download");
    // Another program's damage.
    let whole = blob(cache.path(), &sha256(&content), "");
    std::fs::write(&whole, vec![7; content.len()]).unwrap();
    let (_, path) = get(&hub).expect("download");
    assert_eq!(std::fs::read(path).unwrap(), content);
}

#[test]
fn what_the_hub_refuses_is_said() {
    let content = content();
    for (status, part) in [
        (404, "HTTP status 404: no such repository or file"),
        (401, "HF_TOKEN"),
        (429, "too many requests"),
        (503, "the server has a problem"),
        (418, "HTTP status 418"),
    ] {
        let server = Server::start(Conduct { status: Some(status), ..Conduct::good(&content) });
        let cache = tempfile::tempdir().expect("cache");
        let said = message(get(&hub(&server, cache.path())));
        assert!(
            said.contains(part) && said.contains("timm/vit.dino/resolve/main/model.safetensors"),
            "{said}"
        );
        assert_eq!(files(cache.path()), Vec::<String>::new());
    }
    for (etag, part) in [(None, "the file's hash"), (Some("../../../etc"), "the file's hash")] {
        let etag = etag.map(String::from);
        let server = Server::start(Conduct { etag, ..Conduct::good(&content) });
        let cache = tempfile::tempdir().expect("cache");
        let said = message(get(&hub(&server, cache.path())));
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_hub_that_is_not_there_is_said() {
    // A port that was free a moment ago: nobody listens.
    let server = Server::start(Conduct::good(b""));
    let address = server.address();
    drop(server);
    let cache = tempfile::tempdir().expect("cache");
    let hub = Hub::new(&address, None, false, HubCache::new(cache.path()), None).expect("hub");
    assert!(message(get(&hub)).contains(&address));
}

#[test]
fn repositories_that_moved_and_files_that_lie_elsewhere_are_followed() {
    let content = content();
    let storage = Server::start(Conduct::good(&content));
    let moved = format!("/renamed/vit.dino/resolve/main/{FILE}");
    let server = Server::start(Conduct {
        moved: Some(moved.clone()),
        storage: Some(storage.address().replace("127.0.0.1", "localhost") + "/bucket/object"),
        ..Conduct::good(&content)
    });
    let cache = tempfile::tempdir().expect("cache");
    let (_, path) = get(&hub(&server, cache.path())).expect("download");
    assert_eq!(std::fs::read(path).unwrap(), content);
    assert_eq!(server.requests()[1][1], moved);
    // The token stays with the Hub.
    let elsewhere = storage.requests();
    assert_eq!(elsewhere[0][1..], ["/bucket/object", "", ""].map(String::from));
}

#[test]
fn offline_means_no_request() {
    let server = Server::start(Conduct::good(&content()));
    let cache = HubCache::new("nowhere");
    let hub = Hub::new(&server.address(), None, true, cache, None).expect("hub");
    assert!(message(get(&hub)).contains("HF_HUB_OFFLINE"));
    assert!(server.requests().is_empty());
}

#[test]
fn an_interrupted_download_keeps_what_came() {
    struct StopAfterFirst(std::sync::atomic::AtomicU64);
    impl musc::Progress for StopAfterFirst {
        fn advance(&self, steps: u64) {
            self.0.fetch_add(steps, std::sync::atomic::Ordering::SeqCst);
        }
        fn stopped(&self) -> bool {
            self.0.load(std::sync::atomic::Ordering::SeqCst) > 0
        }
    }
    let content = content();
    let server = Server::start(Conduct { cut_after: Some(40_000), ..Conduct::good(&content) });
    let cache = tempfile::tempdir().expect("cache");
    let hub = hub(&server, cache.path());
    let remote = hub.look_up(REPOSITORY, FILE).expect("look up");
    let stopped = hub.fetch(&remote, &StopAfterFirst(0.into()));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    let part = blob(cache.path(), &sha256(&content), ".incomplete");
    // The first read brings as much as the network had: all that is sent before the cut, or less.
    let kept = std::fs::metadata(&part).unwrap().len() as usize;
    assert!((1..=40_000).contains(&kept), "{kept}");
    assert_eq!(std::fs::read(&part).unwrap(), content[..kept]);
    server.requests();
    get(&hub).expect("download");
    let went_on: Vec<String> =
        (kept..content.len()).step_by(40_000).map(|at| format!("bytes={at}-")).collect();
    assert_eq!(server.ranges(), went_on);
}

#[test]
fn a_file_that_another_program_fetches_is_left_to_it() {
    let content = content();
    let server = Server::start(Conduct::good(&content));
    let cache = tempfile::tempdir().expect("cache");
    let lock =
        cache.path().join(format!(".locks/models--timm--vit.dino/{}.lock", sha256(&content)));
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let held = std::fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let hub = hub(&server, cache.path());
    assert!(message(get(&hub)).contains("another program is fetching it"));
    drop(held);
    get(&hub).expect("download");
}
