//! Runs as one page that a person can mail, and as figures: what was learned, how fast, how robust it is, what is
//! confused with what, how well each neuron is predicted, and what differs between the runs.
//!
//! Absent: where runs lie, and where the page goes.

mod analysis;
mod page;
mod plots;
mod prediction;
mod read;

pub use analysis::{analysis_plots, analysis_plots_of};
pub use page::{Page, Picture};
pub use plots::{Plot, plots};
pub use prediction::{Fit, Outcome, Outcomes, fits, prediction};
pub use read::{Group, Subject, groups};

use crate::table::TableError;

/// What keeps runs from being shown.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file of a run.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// A bug of the rows behind a figure.
    #[error(transparent)]
    Table(#[from] TableError),
}
