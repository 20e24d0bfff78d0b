//! In place of the client, where the program was built without stores.

use super::{Sound, SoundEnds, Start, StoreError};
use std::ops::Range;
use std::time::Duration;

/// There is none.
#[derive(Debug, Clone)]
pub(super) enum Client {}

impl Client {
    pub(super) fn open(url: &str) -> Result<Self, StoreError> {
        Err(StoreError::address(url, "this nct was built without stores; build it with the feature `store`"))
    }

    pub(super) fn url(&self) -> &str {
        match *self {}
    }

    pub(super) fn folders(&self, _: Duration) -> Result<Option<Vec<String>>, StoreError> {
        match *self {}
    }

    pub(super) fn read(&self, _: &str, _: Duration) -> Result<Option<Vec<u8>>, StoreError> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "it stands for one that waits")]
    pub(super) async fn piece(
        &self,
        _: &str,
        _: Range<u64>,
        _: &Sound,
        _: Duration,
    ) -> Result<Vec<u8>, StoreError> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "it stands for one that waits")]
    pub(super) async fn ends(
        &self,
        _: &str,
        _: [u64; 2],
        _: &Start,
        _: &SoundEnds,
        _: Duration,
    ) -> Result<[Vec<u8>; 2], StoreError> {
        match *self {}
    }

    pub(super) fn wait<T>(&self, _: impl Future<Output = T>) -> T {
        match *self {}
    }

    pub(super) fn spawn(&self, _: impl Future<Output = ()> + Send + 'static) {
        match *self {}
    }
}
