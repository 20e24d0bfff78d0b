//! Several workers of one command: processes, because libtorch has one generator and one pool of threads in each.

use super::work::{Place, Worker};
use super::{Args, Failed, statuses};
use crate::cli::exit::{Usage, stop_flag};
use crate::cli::show::{Show, tell};
use crate::model::device;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// The device of worker `number`: with several GPUs, each in turn.
pub(super) fn device(asked: &str, number: u16) -> String {
    if asked == "auto" && device::gpu_present() && device::select(asked).is_ok() {
        let n = tch::Cuda::device_count();
        if n > 1 {
            return format!("cuda:{}", i64::from(number) % n);
        }
    }
    asked.to_owned()
}

/// A worker that did not end well.
struct Dead {
    number: u16,
    status: ExitStatus,
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} ended with {}", self.number, self.status)
    }
}

impl Dead {
    /// What the command ends with: a worker's own complaint of what was asked for counts as the command's.
    fn error(&self) -> anyhow::Error {
        match self.status.code() {
            Some(2) => Usage(self.to_string()).into(),
            _ => Failed(format!("{self}; the same command goes on")).into(),
        }
    }
}

/// Lets workers work until nothing is left that they could do. A worker that dies is replaced as long as something gets
/// done; then the error of one is given.
pub(super) fn work(
    args: &Args,
    place: &Place,
    worker: &mut Worker<'_>,
    show: Show,
) -> anyhow::Result<Option<anyhow::Error>> {
    let settled = |worker: &mut Worker<'_>| -> anyhow::Result<(usize, usize)> {
        let all = statuses(worker)?;
        Ok((all.iter().filter(|(_, status)| status.is_settled()).count(), all.len()))
    };
    let (mut before, n) = settled(worker)?;
    while before < n {
        let died = round(args, place, show)?;
        let (after, _) = settled(worker)?;
        if stop_flag().load(Ordering::Relaxed) || died.is_empty() || after == before {
            return Ok(died.first().filter(|_| after == before).map(Dead::error));
        }
        for dead in died {
            show.line(&format!("{dead}; others take over"));
        }
        before = after;
    }
    Ok(None)
}

/// Starts all workers and waits for them; gives those that died.
fn round(args: &Args, place: &Place, show: Show) -> anyhow::Result<Vec<Dead>> {
    let mut children: Vec<(u16, Child)> = Vec::new();
    for number in 0..args.workers {
        children.push((number, start(args, place, number, show)?));
    }
    let mut died = Vec::new();
    while !children.is_empty() {
        if stop_flag().load(Ordering::Relaxed) {
            // They save, and end.
            for (_, child) in &mut children {
                drop(child.stdin.take());
            }
        }
        let mut left = Vec::new();
        for (number, mut child) in children {
            match child.try_wait()? {
                None => left.push((number, child)),
                Some(status) if matches!(status.code(), Some(0 | 130)) => {}
                Some(status) => died.push(Dead { number, status }),
            }
        }
        children = left;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(died)
}

fn start(args: &Args, place: &Place, number: u16, show: Show) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg(&args.recipe);
    for set in &args.set {
        command.args(["--set", set]);
    }
    command.arg("--shards").arg(&place.shards).arg("--out").arg(&place.out);
    command.args(["--device", &args.device, "--worker", &number.to_string()]);
    command.args(args.no_wait.then_some("--no-wait"));
    command.args(show.is_quiet().then_some("--quiet"));
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        command.env("OMP_NUM_THREADS", (cores / usize::from(args.workers)).max(1).to_string());
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(told) = child.stderr.take() {
        // Line by line, so that the workers' lines do not mix.
        thread::spawn(move || {
            BufReader::new(told).lines().map_while(Result::ok).for_each(|line| tell(&line));
        });
    }
    Ok(child)
}
