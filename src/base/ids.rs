//! Small identifiers that must not be confused with one another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The part of a data set that a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Weights are fitted to these records.
    Train,
    /// Early stopping and the learning-rate schedule look at these.
    Validation,
    /// Looked at once, at the end.
    Test,
}

impl Split {
    /// All splits, in the order in which shards are written.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The name used in files, tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a batch teaches the network (the reference's task keys).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Task {
    /// Responses of neurons in primary visual cortex.
    #[serde(rename = "v1")]
    V1,
    /// Responses of neurons in area V4.
    #[serde(rename = "v4")]
    V4,
    /// Object recognition.
    #[serde(rename = "img_classification")]
    Classification,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 3] = [Self::V1, Self::V4, Self::Classification];

    /// Whether its targets are responses of neurons.
    pub const fn is_neural(self) -> bool {
        !matches!(self, Self::Classification)
    }

    /// The name used in files, tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V4 => "v4",
            Self::Classification => "img_classification",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Position of a stream in its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// Row of a record within its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u64);

/// Number of an optimiser update, counted from the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct StepIndex(pub u64);
