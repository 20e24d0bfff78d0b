//! Requests to a store: many at once, each made again until its answer is right or patience ends.

use super::{Sound, SoundEnds, Start, StoreError};
use crate::base::rng::mix64;
use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig,
};
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use url::Url;

/// Requests under way at once.
const REQUESTS: usize = 32;
/// A slow machine asks so often even beyond its patience.
const REQUESTS_AT_LEAST: u32 = 4;
/// Answers that are too short or have the wrong checksum after which the stored file itself is taken to be damaged.
const WRONG_ANSWERS: u32 = 12;
/// What is told of answers.
const CHECKSUM: &str = "what arrives has the wrong checksum";
const GONE: &str = "it is not there, and the manifest names it; copy the data set again";
/// Pause before the second request; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The threads that wait for answers, of all stores.
static RUNTIME: LazyLock<Result<Runtime, String>> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(4).thread_name("nct-store").enable_all().build().map_err(|e| e.to_string())
});

/// A place in a store.
#[derive(Debug, Clone)]
pub(super) struct Client {
    store: Arc<dyn ObjectStore>,
    root: Location,
    url: Arc<str>,
    lists: bool,
    runtime: &'static Runtime,
    requests: Arc<Semaphore>,
}

impl Client {
    /// The place that `url` names. Asks for nothing yet.
    pub(super) fn open(url: &str) -> Result<Self, StoreError> {
        let wrong = |e: String| StoreError::address(url, e);
        let runtime = RUNTIME.as_ref().map_err(|e| wrong(format!("no thread could be started: {e}")))?;
        let parsed = Url::parse(url).map_err(|e| wrong(e.to_string()))?;
        let (scheme, root) = ObjectStoreScheme::parse(&parsed).map_err(|e| {
            wrong(format!("{e}; known are s3://, gs://, az://, http://, https:// and file:///"))
        })?;
        let lists = scheme != ObjectStoreScheme::Http;
        let store = connect(&scheme, &parsed).map_err(|e| wrong(e.to_string()))?;
        let requests = Arc::new(Semaphore::new(REQUESTS));
        Ok(Self { store, root, url: url.trim_end_matches('/').into(), lists, runtime, requests })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Names of the folders below, unless the store is a web server, which lists nothing.
    pub(super) fn folders(&self, patience: Duration) -> Result<Option<Vec<String>>, StoreError> {
        if !self.lists {
            return Ok(None);
        }
        let ask = || self.store.list_with_delimiter(Some(&self.root));
        let found = self.runtime.block_on(self.until(&self.url, patience, ask, |_| Ok(())))?;
        let names = found.into_iter().flat_map(|found| found.common_prefixes);
        Ok(Some(names.filter_map(|prefix| prefix.filename().map(str::to_owned)).collect()))
    }

    /// A small file below, if it is there.
    pub(super) fn read(&self, name: &str, patience: Duration) -> Result<Option<Vec<u8>>, StoreError> {
        let (place, url) = self.place(name);
        let ask = || async { self.store.get(&place).await?.bytes().await };
        let bytes = self.runtime.block_on(self.until(&url, patience, ask, |_| Ok(())))?;
        Ok(bytes.map(Vec::from))
    }

    /// Bytes of the file `name`; they are asked for again until `sound`.
    pub(super) async fn piece(
        &self,
        name: &str,
        range: Range<u64>,
        sound: &Sound,
        patience: Duration,
    ) -> Result<Vec<u8>, StoreError> {
        let (place, url) = self.place(name);
        let ask = || self.store.get_range(&place, range.clone());
        let wanted = range.end - range.start;
        let found = self.until(&url, patience, ask, |bytes| match bytes.len() as u64 == wanted {
            false => Err(format!("the answer ends after {} bytes", bytes.len())),
            true if sound(bytes) => Ok(()),
            true => Err(CHECKSUM.to_owned()),
        });
        Ok(found.await?.ok_or_else(|| fetch(&url, GONE))?.into())
    }

    /// The first `n` of a file's `end` bytes, and those from where the first say that the last ones begin; both are asked
    /// for again until `sound`.
    pub(super) async fn ends(
        &self,
        name: &str,
        [n, end]: [u64; 2],
        last: &Start,
        sound: &SoundEnds,
        patience: Duration,
    ) -> Result<[Vec<u8>; 2], StoreError> {
        let (place, url) = self.place(name);
        let ask = async || {
            let first = self.store.get_range(&place, 0..n).await?;
            let last = match last(&first).filter(|&at| at < end) {
                Some(at) => self.store.get_range(&place, at..end).await?,
                None => Bytes::new(),
            };
            Ok([first, last])
        };
        let found = self.until(&url, patience, ask, |[first, last]| {
            sound(first, last).then_some(()).ok_or_else(|| CHECKSUM.to_owned())
        });
        Ok(found.await?.ok_or_else(|| fetch(&url, GONE))?.map(Vec::from))
    }

    /// Waits for `work` from a thread that is none of the runtime's.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Does `work` beside everything else.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    fn place(&self, name: &str) -> (Location, String) {
        // Names are those of data sets and shards; `Location` escapes what a URL cannot hold.
        let place = name.split('/').fold(self.root.clone(), Location::join);
        (place, format!("{}/{name}", self.url))
    }

    /// The first answer that is `right`; none if there is no such file.
    async fn until<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        url: &str,
        patience: Duration,
        ask: impl Fn() -> F,
        right: impl Fn(&T) -> Result<(), String>,
    ) -> Result<Option<T>, StoreError> {
        let (start, mut wrong) = (Instant::now(), 0);
        for attempt in 0.. {
            let permit = self.requests.acquire().await;
            let answer = ask().await;
            drop(permit);
            let (what, is_wrong) = match answer.map(|answer| right(&answer).map(|()| answer)) {
                Ok(Ok(answer)) => return Ok(Some(answer)),
                Ok(Err(what)) => (what, true),
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(e) => match hopeless(&e) {
                    Some(hint) => return Err(refused(url, &e, hint)),
                    None => (told(&e), ends_early(&e)),
                },
            };
            wrong += u32::from(is_wrong);
            if wrong == WRONG_ANSWERS {
                let what =
                    format!("{what}, {wrong} times: the stored file is damaged; copy the data set again");
                return Err(fetch(url, what));
            }
            if start.elapsed() >= patience && attempt + 1 >= REQUESTS_AT_LEAST {
                let what = format!("{what}; asked {} times in {} s", attempt + 1, start.elapsed().as_secs());
                return Err(fetch(url, what));
            }
            tokio::time::sleep(if is_wrong { FIRST_PAUSE } else { pause(url, attempt) }).await;
        }
        unreachable!("the loop ends by returning")
    }
}

fn fetch(url: &str, what: impl Into<String>) -> StoreError {
    StoreError::Fetch { url: url.to_owned(), what: what.into() }
}

/// An error and its causes in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What to do about an error that asking again does not mend.
fn hopeless(error: &object_store::Error) -> Option<&'static str> {
    use object_store::Error::{
        InvalidPath, NotImplemented, NotSupported, PermissionDenied, Unauthenticated, UnknownConfigurationKey,
    };
    match error {
        PermissionDenied { .. } | Unauthenticated { .. } => Some(
            "credentials are read from AWS_*, GOOGLE_* or AZURE_* (AWS_SKIP_SIGNATURE=true for public buckets)",
        ),
        NotSupported { .. } | NotImplemented { .. } => {
            Some("the server must be able to send ranges of a file; copy the data set here instead")
        }
        InvalidPath { .. } | UnknownConfigurationKey { .. } => Some("see `nct help stores`"),
        _ => None,
    }
}

/// What is told of such an error.
fn refused(url: &str, error: &object_store::Error, hint: &str) -> StoreError {
    let (url, what) = (url.to_owned(), format!("{}; {hint}", told(error)));
    match error {
        object_store::Error::PermissionDenied { .. } => StoreError::Denied { url, what },
        _ => StoreError::Fetch { url, what },
    }
}

/// Whether the server says, or shows, that the file is shorter than what was asked for. The crate has no kind of error
/// for that; were its words others, such a file would only be asked for until patience ends.
fn ends_early(error: &object_store::Error) -> bool {
    let text = told(error);
    text.contains(", got ") || text.contains("416 Range Not Satisfiable")
}

/// Grows, and differs between files that failed at the same time.
fn pause(url: &str, attempt: u32) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
    let draw = mix64(u64::from(crate::base::digest::crc32c(url.as_bytes())) << 32 | u64::from(attempt));
    full.mul_f64(0.5 + 0.5 * (draw >> 11) as f64 / (1u64 << 53) as f64)
}

/// The client of a kind of store, with what the environment says of it.
fn connect(scheme: &ObjectStoreScheme, url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    // Asking again is done above; these are for what the crate asks for itself, such as credentials.
    let backoff = BackoffConfig { init_backoff: FIRST_PAUSE, ..BackoffConfig::default() };
    let retry = RetryConfig { max_retries: 1, retry_timeout: Duration::from_secs(10), backoff };
    Ok(match scheme {
        ObjectStoreScheme::Local => Arc::new(LocalFileSystem::new()),
        ObjectStoreScheme::AmazonS3 => {
            let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
            let endpoint = names.iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
            let mut builder = AmazonS3Builder::from_env().with_retry(retry).with_url(url.as_str());
            if endpoint.starts_with("http://") {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            Arc::new(GoogleCloudStorageBuilder::from_env().with_retry(retry).with_url(url.as_str()).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            Arc::new(MicrosoftAzureBuilder::from_env().with_retry(retry).with_url(url.as_str()).build()?)
        }
        ObjectStoreScheme::Http => {
            let options = ClientOptions::new().with_allow_http(true);
            let server = &url[..url::Position::BeforePath];
            Arc::new(
                HttpBuilder::new().with_client_options(options).with_retry(retry).with_url(server).build()?,
            )
        }
        _ => return Err(object_store::Error::NotSupported { source: "no such store".into() }),
    })
}
