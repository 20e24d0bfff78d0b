//! Host memory of one stream's rows; recycled.

use super::aligned::Aligned;
use super::moves::Moves;
use crate::base::{StreamId, Task};
use crate::schedule::StepPlan;
use half::{bf16, f16};

/// Images with their targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The stream they come from.
    pub stream: StreamId,
    /// What they teach.
    pub task: Task,
    /// Raw ids of the images.
    pub ids: Vec<u32>,
    /// Extent of one image: channels, height, width.
    pub image: [u32; 3],
    /// Pixels `[records, channels, height, width]`; with two views of each image, those of all first views and then
    /// those of all second ones.
    pub pixels: Pixels,
    /// Class of each record; empty for sessions without. Kept beside `responses` so that neither is given back
    /// to the system when the memory serves another stream.
    labels: Vec<i64>,
    /// Responses `[records, neurons]`; empty for labelled images.
    responses: Vec<f32>,
}

/// Pixels in the type that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// As stored, not normalised.
    U8(Aligned<u8>),
    /// Normalised.
    F16(Aligned<f16>),
    /// Normalised.
    Bf16(Aligned<bf16>),
    /// Normalised.
    F32(Aligned<f32>),
    /// None: the device has all images, and makes these.
    Moves(Moves),
}

/// Type of the pixels of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelType {
    /// As stored, for whoever normalises on the device.
    U8,
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Single precision.
    F32,
    /// How a device that holds the images makes single-precision ones.
    Moves,
}

impl Pixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::F16(v) => v.len(),
            Self::Bf16(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Moves(v) => v.places.as_flattened().len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let size = match self {
            Self::U8(_) => 1,
            Self::F16(_) | Self::Bf16(_) => 2,
            Self::F32(_) | Self::Moves(_) => 4,
        };
        self.len() * size
    }

    /// The values, if they are single precision.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if let Self::F32(values) = self { Some(values) } else { None }
    }
}

/// What the network should say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Targets<'a> {
    /// Class of each record.
    Labels(&'a [i64]),
    /// Responses `[records, neurons]`.
    Responses(&'a [f32]),
    /// Images of a session whose classes are known.
    Both {
        /// Class of each record.
        labels: &'a [i64],
        /// Responses `[records, neurons]`.
        responses: &'a [f32],
    },
}

impl Batch {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The targets of the records.
    pub fn targets(&self) -> Targets<'_> {
        match self.task {
            Task::Classification => Targets::Labels(&self.labels),
            Task::V1 | Task::V4 if self.labels.is_empty() => Targets::Responses(&self.responses),
            Task::V1 | Task::V4 => Targets::Both { labels: &self.labels, responses: &self.responses },
        }
    }

    /// The memory of the targets, emptied.
    pub(super) fn targets_mut(&mut self) -> (&mut Vec<i64>, &mut Vec<f32>) {
        self.labels.clear();
        self.responses.clear();
        (&mut self.labels, &mut self.responses)
    }
}

impl Default for Batch {
    /// A batch without records, to be filled.
    fn default() -> Self {
        Self {
            stream: StreamId(0),
            task: Task::Classification,
            ids: Vec::new(),
            image: [0; 3],
            pixels: Pixels::F32(Aligned::default()),
            labels: Vec::new(),
            responses: Vec::new(),
        }
    }
}

/// The batches of one update.
#[derive(Debug, Default)]
pub struct Step {
    /// The plan they follow, for all processes together.
    pub plan: StepPlan,
    /// One batch for each of the plan's: this process's share of it.
    pub batches: Vec<Batch>,
    /// Batches of earlier updates that this one has no use for.
    pub(super) unused: Vec<Batch>,
}
