//! `nct launch`: one training by several processes of this machine.

use super::exit::{Ended, Usage, stop_flag};
use super::show::{Show, tell};
use super::train::together::environment;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Arguments of `nct launch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of processes
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    n: u32,
    /// What they do together: `train`, with its options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Tells a process that its parent speaks for it.
pub(crate) const LAUNCHED: &str = "NCT_LAUNCHED";
/// How long the others may take to save and end when one has ended.
const GRACE: Duration = Duration::from_secs(5);
/// Exit code for want of another process.
const LOST: i32 = 3;
/// How much of what a process said is kept.
const LINES: usize = 40;

/// One of the processes.
struct Process {
    child: Child,
    /// What it says, if that is not shown at once.
    said: Option<JoinHandle<VecDeque<String>>>,
    ended: Option<ExitStatus>,
    /// Whether this command killed it.
    stopped: bool,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    if args.command.first().is_none_or(|command| command != "train") {
        let what = format!("nct launch -n {} train …: only `train` is for several processes", args.n);
        return Err(Usage(what).into());
    }
    // Free a moment ago; if another program takes it, process 0 says so and all end.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut all = Vec::new();
    for rank in 0..args.n {
        all.push(start(args, rank, port, show)?);
    }
    wait(&mut all)?;
    verdict(all)
}

fn start(args: &Args, rank: u32, port: u16, show: Show) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(&args.command).args(show.is_quiet().then_some("--quiet"));
    command.envs(environment(rank, args.n, port)).env(LAUNCHED, "1").stdin(Stdio::piped());
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        command.env("OMP_NUM_THREADS", (cores / args.n as usize).max(1).to_string());
    }
    if std::env::var_os("TORCH_CPP_LOG_LEVEL").is_none() {
        // The reducer remarks on the strides of 1 x 1 kernels, which have several that mean the same.
        command.env("TORCH_CPP_LOG_LEVEL", "ERROR");
    }
    if std::env::var_os("NCCL_DEBUG").is_some() && std::env::var_os("NCCL_DEBUG_FILE").is_none() {
        // It would say it where results go, which those of other ranks do not.
        command.env("NCCL_DEBUG_FILE", "/dev/stderr");
    }
    if rank > 0 {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    }
    let mut child = command.spawn()?;
    let said = child.stderr.take().map(|told| {
        thread::spawn(move || {
            let mut kept = VecDeque::new();
            for line in BufReader::new(told).lines().map_while(Result::ok) {
                kept.push_back(line);
                if kept.len() > LINES {
                    kept.pop_front();
                }
            }
            kept
        })
    });
    Ok(Process { child, said, ended: None, stopped: false })
}

/// Waits until all have ended; when one has failed, the others get a moment, and are killed then.
fn wait(all: &mut [Process]) -> anyhow::Result<()> {
    let mut since: Option<Instant> = None;
    loop {
        for process in all.iter_mut().filter(|process| process.ended.is_none()) {
            process.ended = process.child.try_wait()?;
        }
        if all.iter().all(|process| process.ended.is_some()) {
            return Ok(());
        }
        let failed = |process: &Process| process.ended.is_some_and(|status| !status.success());
        if since.is_none() && all.iter().any(failed) {
            since = Some(Instant::now());
        }
        if stop_flag().load(Ordering::Relaxed) || since.is_some() {
            // Without their parent's end of stdin they save, if they can, and end.
            for process in all.iter_mut() {
                drop(process.child.stdin.take());
            }
        }
        if since.is_some_and(|since| since.elapsed() > GRACE) {
            for process in all.iter_mut().filter(|process| process.ended.is_none()) {
                process.stopped = process.child.kill().is_ok();
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Of those that failed, one that was killed, and not by this command; else one with an error of its own, not for want
/// of another.
fn cause(all: &[Process]) -> Option<usize> {
    let found = |fits: fn(Option<i32>) -> bool| {
        let fits = |process: &Process| process.ended.is_some_and(|status| fits(status.code()));
        all.iter().position(|process| !process.stopped && fits(process))
    };
    let own = |code: Option<i32>| !matches!(code, None | Some(0 | LOST));
    found(|code| code.is_none()).or_else(|| found(own)).or_else(|| found(|code| code == Some(LOST)))
}

/// Tells what ended the training, if process 0 did not.
fn verdict(mut all: Vec<Process>) -> anyhow::Result<()> {
    let Some(cause) = cause(&all) else { return Ok(()) };
    let (n, process) = (all.len(), &mut all[cause]);
    let status = process.ended.unwrap_or_default();
    let interrupted = status.code() == Some(130);
    if cause > 0 || status.code().is_none() {
        let said = process.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        if !interrupted {
            for line in said {
                tell(&format!("[{cause}] {line}"));
            }
            tell(&format!("nct: process {cause} of {n} ended with {status}; the others were ended"));
        }
    }
    Err(Ended(status.code().map_or(1, |code| code as u8)).into())
}
