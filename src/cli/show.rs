//! Progress, tables, number formats, and words that several commands take.

use crate::base::Split;
use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Where and whether to show progress.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Show {
    quiet: bool,
    terminal: bool,
    /// Number of the worker that speaks.
    worker: Option<u16>,
}

/// A line on stderr. That nobody reads it any more must not end training.
pub(super) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Show {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { quiet, terminal: std::io::stderr().is_terminal(), worker: None }
    }

    /// The same for one of several workers: its lines begin with its number.
    #[cfg(feature = "torch")]
    pub(crate) fn prefixed(self, worker: u16) -> Self {
        Self { worker: Some(worker), ..self }
    }

    /// Whether only what went wrong is said.
    #[cfg(feature = "torch")]
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// A line for people.
    pub(crate) fn line(self, text: &str) {
        if !self.quiet {
            tell(&self.told(text));
        }
    }

    /// A table for [`Self::line`].
    pub(crate) fn table(header: &[&str]) -> Table {
        let mut table = Table::new();
        table.use_stderr();
        fitted(table, header)
    }

    fn told(self, text: &str) -> String {
        self.worker.map_or_else(|| text.to_owned(), |worker| format!("[{worker}] {text}"))
    }

    /// A bar of `n` steps with rate and time left; plain lines where there is no terminal.
    pub(crate) fn bar(self, title: &str, n: u64, unit: &'static str) -> Bar {
        let target = if self.terminal && !self.quiet {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(n), target);
        bar.set_style(style(unit, ""));
        bar.set_prefix(title.to_owned());
        let plain = !self.terminal && !self.quiet;
        Bar {
            bar,
            plain,
            title: self.told(title),
            unit,
            started: Instant::now(),
            told: Mutex::new(Instant::now()),
        }
    }
}

/// A split as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SplitArg {
    Train,
    Validation,
    Test,
}

impl SplitArg {
    pub(crate) fn split(self) -> Split {
        match self {
            Self::Train => Split::Train,
            Self::Validation => Split::Validation,
            Self::Test => Split::Test,
        }
    }
}

/// A progress bar, or a line every few seconds.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    plain: bool,
    title: String,
    unit: &'static str,
    started: Instant,
    told: Mutex<Instant>,
}

fn style(unit: &str, below: &str) -> ProgressStyle {
    let template =
        format!("{{prefix:>24}} {{bar:30}} {{pos}}/{{len}} {unit} {{rate:>8}} {{eta}} left{below}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", |state: &ProgressState, to: &mut dyn std::fmt::Write| {
        let rate = state.per_sec();
        let digits = usize::from(rate < 100.0);
        let _ = write!(to, "{rate:.digits$}/s");
    })
}

/// Seconds between plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// Between lines below a bar.
#[cfg(feature = "torch")]
const NEWS_EVERY: Duration = Duration::from_millis(500);

impl Bar {
    pub(crate) fn advance(&self, n: u64) {
        self.bar.inc(n);
        if self.plain && self.is_due(PLAIN_EVERY) {
            tell(&self.plain_line());
        }
    }

    /// The same, with a line about how it goes below the bar or after the plain line.
    #[cfg(feature = "torch")]
    pub(crate) fn advance_with(&self, n: u64, news: impl FnOnce() -> String) {
        self.bar.inc(n);
        if self.plain && self.is_due(PLAIN_EVERY) {
            tell(&format!("{}; {}", self.plain_line(), news()));
        } else if !self.plain && !self.bar.is_hidden() {
            let first = self.bar.message().is_empty();
            if !first && !self.is_due(NEWS_EVERY) {
                return;
            }
            // A second line from the first news on, cut where the terminal ends.
            if first {
                self.bar.set_style(style(self.unit, "\n{wide_msg}"));
            }
            self.bar.set_message(format!("{:>12} {}", "", news()));
        }
    }

    fn is_due(&self, every: Duration) -> bool {
        let Ok(mut told) = self.told.lock() else { return false };
        let due = told.elapsed() >= every;
        if due {
            *told = Instant::now();
        }
        due
    }

    fn plain_line(&self) -> String {
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let rate = done as f64 / self.started.elapsed().as_secs_f64();
        let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
        let digits = usize::from(rate < 100.0);
        format!("{}: {done}/{total} {}, {rate:.digits$}/s, {left:.0} s left", self.title, self.unit)
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A table in the style of all others, for [`out`].
pub(crate) fn table(header: &[&str]) -> Table {
    fitted(Table::new(), header)
}

/// Lines above and below and under the header: one after each row would double the height.
const STYLE: TableStyle = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());

/// As wide as the terminal at most; where there is none, as wide as its content.
fn fitted(mut table: Table, header: &[&str]) -> Table {
    table.load_style(STYLE).set_header(header);
    // A terminal that was never told its size says 0, and each column would have one letter.
    if table.width().is_some_and(|columns| columns > 0) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// Bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// Whole numbers with separators.
pub(crate) fn count(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

/// A result, to stdout. A closed pipe is an error that ends the program quietly.
pub(crate) fn out(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
