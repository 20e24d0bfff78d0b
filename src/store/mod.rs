//! Files behind a URL: in S3, Google Cloud Storage or Azure, on a web server, or in a folder. Pieces of them are
//! fetched as they are needed, many at once, checked on arrival, and kept in a bounded folder on disk.
//!
//! Absent: knowledge of what the files hold. Who asks for a piece says how a right one is known.

mod cache;
#[cfg(not(feature = "store"))]
#[path = "absent.rs"]
mod client;
#[cfg(feature = "store")]
mod client;
mod error;

pub use error::StoreError;

use crate::base::Fingerprint;
use crate::base::digest::crc32c;
use cache::Cache;
use client::Client;
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether bytes are the right ones.
pub type Sound = dyn Fn(&[u8]) -> bool + Send + Sync;

/// Where a file's last bytes begin, as its first say.
pub type Start = dyn Fn(&[u8]) -> Option<u64> + Send + Sync;
/// Whether the first and last bytes of a file are the right ones.
pub type SoundEnds = dyn Fn(&[u8], &[u8]) -> bool + Send + Sync;

/// How long a store may fail before a command gives up that has only begun.
const PATIENCE_AT_START: Duration = Duration::from_secs(10);
/// And one that has work to lose.
const PATIENCE: Duration = Duration::from_mins(3);
/// Threads that wait for answers on behalf of one caller.
const AT_ONCE: usize = 16;
/// Large files are fetched in pieces of this.
const PIECE: u64 = 4 << 20;

/// The URL that a path is, if it is one.
pub fn url_of(path: &Path) -> Option<&str> {
    let text = path.to_str()?;
    let (scheme, _) = text.split_once("://")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (!scheme.is_empty() && scheme.chars().all(plain)).then_some(text)
}

/// A folder behind a URL.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
    /// Path below the URL that was opened: empty, or ending in a slash.
    below: String,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    cache: Cache,
    /// Pieces that are being fetched: nobody fetches one that another is about to have.
    flying: Mutex<HashSet<Key>>,
    landed: Condvar,
}

impl Store {
    /// The folder that `url` names; credentials and the cache are those of the environment. Asks for nothing yet.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let (client, cache) = (Client::open(url)?, Cache::of_environment()?);
        let inner = Inner { client, cache, flying: Mutex::default(), landed: Condvar::new() };
        Ok(Self { inner: Arc::new(inner), below: String::new() })
    }

    /// The folder `name` in it.
    pub fn below(&self, name: &str) -> Self {
        Self { inner: Arc::clone(&self.inner), below: format!("{}{name}/", self.below) }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}/{}", self.inner.client.url(), self.below).trim_end_matches('/').to_owned()
    }

    /// A small file that may change, never from the cache; none if it is not there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.client.read(&format!("{}{name}", self.below), PATIENCE_AT_START)
    }

    /// Names of the folders in the one that was opened; none where the store cannot tell, as web servers cannot.
    pub fn folders(&self) -> Result<Option<Vec<String>>, StoreError> {
        self.inner.client.folders(PATIENCE_AT_START)
    }

    /// A file in it that never changes, of `bytes` bytes and with `digest`, which names it in the cache.
    pub fn file(&self, name: &str, bytes: u64, digest: &Fingerprint) -> StoredFile {
        let name = format!("{}{name}", self.below);
        StoredFile { store: Arc::clone(&self.inner), name, bytes, digest: digest.clone() }
    }

    /// Does `work`, which waits for answers most of the time, for many items at once; results are in their order.
    pub fn each<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(items.len()));
        std::thread::scope(|scope| {
            for _ in 0..items.len().min(AT_ONCE) {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(i) else { break };
                        let result = work(item);
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(i, _)| *i);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

/// A file in a store.
#[derive(Debug, Clone)]
pub struct StoredFile {
    store: Arc<Inner>,
    name: String,
    bytes: u64,
    digest: Fingerprint,
}

impl StoredFile {
    /// Length in bytes, as it should be.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Some of its bytes: from the cache or the store, whichever has `sound` ones.
    pub fn piece(&self, range: Range<u64>, sound: &Sound) -> Result<Vec<u8>, StoreError> {
        let Inner { client, cache, .. } = &*self.store;
        let _claim = self.store.claim(Key(self.digest.clone(), range.start));
        if let Some(bytes) = cache.read(&self.digest, &range).filter(|bytes| sound(bytes)) {
            return Ok(bytes);
        }
        let bytes = client.wait(client.piece(&self.name, range.clone(), sound, PATIENCE))?;
        cache.write(&self.digest, &range, &bytes)?;
        Ok(bytes)
    }

    /// Its first `n` bytes, and those from where they say that the last ones begin: what describes a file, and only
    /// together is known to be right.
    pub fn ends(&self, n: u64, last: &Start, sound: &SoundEnds) -> Result<[Vec<u8>; 2], StoreError> {
        let Inner { client, cache, .. } = &*self.store;
        let (end, n) = (self.bytes, n.min(self.bytes));
        let _claim = self.store.claim(Key(self.digest.clone(), 0));
        let kept = || {
            let first = cache.read(&self.digest, &(0..n))?;
            let last = cache.read(&self.digest, &(last(&first)?..end))?;
            sound(&first, &last).then_some([first, last])
        };
        if let Some(ends) = kept() {
            return Ok(ends);
        }
        let ends = client.wait(client.ends(&self.name, [n, end], last, sound, PATIENCE))?;
        let at = end - ends[1].len() as u64;
        cache.write(&self.digest, &(0..n), &ends[0])?;
        cache.write(&self.digest, &(at..end), &ends[1])?;
        Ok(ends)
    }

    /// Begins to bring bytes whose CRC32C is `checksum` into the cache, unless they are there: they will be asked for
    /// soon. What fails is tried again, and told, when they are.
    pub fn expect(&self, range: Range<u64>, checksum: u32) {
        let key = Key(self.digest.clone(), range.start);
        if self.store.cache.has(&self.digest, &range) {
            return;
        }
        let Some(claim) = self.store.claim_free(key) else { return };
        let file = self.clone();
        self.store.client.spawn(async move {
            let (Inner { client, cache, .. }, _claim) = (&*file.store, claim);
            let sound = move |bytes: &[u8]| crc32c(bytes) == checksum;
            // Who asks for it waits for this, and then has a patience of its own.
            if let Ok(bytes) = client.piece(&file.name, range.clone(), &sound, PATIENCE_AT_START).await {
                let _ = cache.write(&file.digest, &range, &bytes);
            }
        });
    }

    /// All of it, past the cache, in pieces that `on_bytes` hears of. Who asks looks at the digest.
    pub fn whole(&self, on_bytes: &dyn Fn(u64)) -> Result<Vec<u8>, StoreError> {
        let client = &self.store.client;
        let mut out = Vec::with_capacity(self.bytes.min(1 << 32) as usize);
        while (out.len() as u64) < self.bytes {
            let start = out.len() as u64;
            let range = start..(start + PIECE).min(self.bytes);
            out.extend(client.wait(client.piece(&self.name, range.clone(), &|_| true, PATIENCE))?);
            on_bytes(range.end - range.start);
        }
        Ok(out)
    }
}

/// Digest of a file, first byte of a piece.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key(Fingerprint, u64);

impl Inner {
    /// The right to fetch a piece, once nobody else does.
    fn claim(self: &Arc<Self>, key: Key) -> Claim {
        let mut flying = self.flying();
        while flying.contains(&key) {
            flying = self.landed.wait(flying).unwrap_or_else(PoisonError::into_inner);
        }
        flying.insert(key.clone());
        Claim(Arc::clone(self), key)
    }

    /// The right to fetch a piece, unless somebody does.
    fn claim_free(self: &Arc<Self>, key: Key) -> Option<Claim> {
        self.flying().insert(key.clone()).then(|| Claim(Arc::clone(self), key))
    }

    fn flying(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to fetch a piece, until it is dropped.
struct Claim(Arc<Inner>, Key);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.flying().remove(&self.1);
        self.0.landed.notify_all();
    }
}
