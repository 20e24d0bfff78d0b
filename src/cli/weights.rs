//! `nct weights`: what a weights file holds, the same as safetensors, and how it differs from another.

use super::exit::Usage;
use super::show::{Show, bytes, count, out, table};
use crate::model::weights::{Described, Difference, Verdict, Weights, differences, encode, pth};
use crate::runs::{Run, write_atomic};
use crate::train::{network_weights, part_of};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Arguments of `nct weights`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A .safetensors, .pth, .pt or .pth.tar file, or the folder of a run: its best weights, or else its last
    #[arg(value_name = "FILE|RUN")]
    from: PathBuf,
    /// Write the network's weights to this file: .safetensors, or .pth for `torch.load`
    #[arg(long, value_name = "OUT", conflicts_with = "diff")]
    to: Option<PathBuf>,
    /// Replace OUT if it is there
    #[arg(long, requires = "to")]
    force: bool,
    /// Compare with another file or run, as if its weights were loaded into the network of the first
    #[arg(long, value_name = "OTHER")]
    diff: Option<PathBuf>,
    /// Print one JSON object a line and tensor, and one at the end for all
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let file = File::read(&args.from)?;
    match (&args.to, &args.diff) {
        (Some(to), _) => convert(&file, to, args),
        (None, Some(other)) => diff(&file, &File::read(other)?, args.json, show),
        (None, None) => list(&file, args.json),
    }
}

/// A weights file and where it lies.
struct File {
    path: PathBuf,
    weights: Weights,
}

impl File {
    fn read(from: &Path) -> anyhow::Result<Self> {
        let path = if from.is_dir() { of_run(&Run::open(from)?)? } else { from.to_path_buf() };
        Ok(Self { weights: Weights::read(&path)?, path })
    }
}

fn of_run(run: &Run) -> Result<PathBuf, Usage> {
    let paths = [run.final_weights(), "best", "last"].map(|name| run.checkpoint(name));
    paths.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let root = run.root().display();
        Usage(format!("{root}: the run has no weights yet; go on with `nct train --resume {root}`"))
    })
}

/// Number of tensors, of values in them, and of bytes.
fn totals(tensors: &[(String, Tensor)]) -> [u64; 3] {
    let size = |(_, t): &(String, Tensor)| [1, t.numel() as u64, t.numel() as u64 * width(t)];
    tensors.iter().map(size).fold([0; 3], |sum, n| std::array::from_fn(|i| sum[i] + n[i]))
}

fn width(tensor: &Tensor) -> u64 {
    tensor.kind().elt_size_in_bytes() as u64
}

fn totals_text([tensors, values, size]: [u64; 3]) -> String {
    format!("{} tensors, {} values, {}", count(tensors), count(values), bytes(size))
}

fn list(file: &File, json: bool) -> anyhow::Result<()> {
    let (path, tensors) = (file.path.display().to_string(), &file.weights.tensors);
    let parts = tensors.iter().map(|(name, _)| part_of(name, &file.weights));
    if json {
        for ((name, tensor), part) in tensors.iter().zip(parts) {
            let Described { dtype, shape } = Described::of(tensor);
            let (values, size) = (tensor.numel(), tensor.numel() as u64 * width(tensor));
            let line = json!({
                "name": name, "shape": shape, "dtype": dtype, "values": values, "bytes": size, "part": part,
            });
            out(&line.to_string())?;
        }
        return out(&total(&path, tensors, &[]).to_string());
    }
    let mut table = table(&["tensor", "shape", "type", "values"]);
    for (name, tensor) in tensors {
        let Described { dtype, shape } = Described::of(tensor);
        table.add_row([name.clone(), format!("{shape:?}"), dtype.to_owned(), count(tensor.numel() as u64)]);
    }
    out(&table.to_string())?;
    out(&format!("{path}: {}", totals_text(totals(tensors))))?;
    let network = network_weights(&file.weights);
    if network.len() < tensors.len() {
        out(&format!("of the network: {}", totals_text(totals(&network))))?;
    }
    Ok(())
}

/// The last line of JSON.
fn total(path: &str, tensors: &[(String, Tensor)], more: &[(&str, Value)]) -> Value {
    let [n, values, size] = totals(tensors);
    let mut line = json!({"file": path, "tensors": n, "values": values, "bytes": size});
    for (key, value) in more {
        line[*key] = value.clone();
    }
    line
}

fn convert(file: &File, to: &Path, args: &Args) -> anyhow::Result<()> {
    let torch = ["pth", "pt"].iter().any(|known| to.extension().is_some_and(|e| e == *known));
    if !torch && to.extension().is_none_or(|e| e != "safetensors") {
        let what = format!("{}: let its name end with .safetensors, .pth or .pt", to.display());
        return Err(Usage(what).into());
    }
    if to.exists() && !args.force {
        return Err(Usage(format!("{} is there already; --force replaces it", to.display())).into());
    }
    let network = network_weights(&file.weights);
    // Readers of other projects ask for this entry, which PyTorch's own writer leaves.
    let made = if torch { pth(&network)? } else { encode(&network, &[("format", "pt".to_owned())])? };
    write_atomic(to, &made)?;
    let path = file.path.display().to_string();
    if args.json {
        return out(&total(&path, &network, &[("to", json!(to.display().to_string()))]).to_string());
    }
    out(&format!("{}: {}, from {path}", to.display(), totals_text(totals(&network))))
}

fn diff(file: &File, other: &File, json: bool, show: Show) -> anyhow::Result<()> {
    let found = differences(&network_weights(&file.weights), &network_weights(&other.weights))?;
    let equal = found.iter().all(|d| d.verdict == Verdict::Equal);
    let [ours, theirs] = [file, other].map(|f| f.path.display().to_string());
    if json {
        for d in &found {
            out(&difference_line(d).to_string())?;
        }
        let n = |word| found.iter().filter(|d| verdict_word(d.verdict) == word).count();
        let line = json!({
            "file": ours, "other": theirs, "equal": equal, "tensors": found.len(), "same": n("equal"),
            "different": n("different"), "missing": n("missing"), "unexpected": n("unexpected"),
            "mismatched": n("mismatched"),
        });
        return out(&line.to_string());
    }
    show.line(&format!("{theirs}, as it would be loaded into {ours}:"));
    let renamed = found.iter().find(|d| d.their_name.as_ref().is_some_and(|name| *name != d.name));
    if let Some(Difference { name, their_name: Some(theirs), .. }) = renamed {
        show.line(&format!("names were fitted, such as {theirs} to {name}"));
    }
    out(&difference_text(&found))
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Missing => "missing",
        Verdict::Unexpected => "unexpected",
        Verdict::Mismatched => "mismatched",
        Verdict::Different(_) => "different",
        Verdict::Equal => "equal",
    }
}

fn difference_line(d: &Difference) -> Value {
    let largest = match d.verdict {
        // NaN and infinity become null.
        Verdict::Different(by) => json!(by),
        Verdict::Equal => json!(0.0),
        _ => Value::Null,
    };
    let [ours, theirs] = [&d.ours, &d.theirs].map(Option::as_ref);
    json!({
        "name": d.name, "other_name": d.their_name, "status": verdict_word(d.verdict), "max_abs_diff": largest,
        "shape": ours.map(|t| &t.shape), "dtype": ours.map(|t| t.dtype),
        "other_shape": theirs.map(|t| &t.shape), "other_dtype": theirs.map(|t| t.dtype),
    })
}

/// What PyTorch would say of the names and shapes, and the largest difference of each tensor that is not equal.
fn difference_text(found: &[Difference]) -> String {
    let mut text = String::new();
    for (what, verdict) in [("Missing", Verdict::Missing), ("Unexpected", Verdict::Unexpected)] {
        let names: Vec<String> =
            found.iter().filter(|d| d.verdict == verdict).map(|d| format!("\"{}\"", d.name)).collect();
        if !names.is_empty() {
            text += &format!("{what} key(s) in state_dict: {}.\n", names.join(", "));
        }
    }
    let mut different = table(&["tensor", "type", "largest difference"]);
    let mut n = [0; 2];
    for d in found {
        let (Some(ours), Some(theirs)) = (&d.ours, &d.theirs) else { continue };
        match d.verdict {
            Verdict::Mismatched => {
                text += &format!(
                    "size mismatch for {}: copying a param with shape {:?} from checkpoint, the shape in current model is {:?}.\n",
                    d.name, theirs.shape, ours.shape
                );
            }
            Verdict::Different(by) => {
                n[1] += 1;
                let same_type = ours.dtype == theirs.dtype;
                let types = if same_type {
                    ours.dtype.to_owned()
                } else {
                    format!("{} and {}", ours.dtype, theirs.dtype)
                };
                different.add_row([d.name.clone(), types, format!("{by:.3e}")]);
            }
            Verdict::Equal => n[0] += 1,
            Verdict::Missing | Verdict::Unexpected => {}
        }
    }
    if n[1] > 0 {
        text += &format!("{different}\n");
    }
    text + &format!("{} of {} tensors are equal", n[0], found.len())
}
