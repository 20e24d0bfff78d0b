//! `nct rsa --noise`: how far layers represent images alike with noise and without (spec/reconstruction 4.5).

use super::{Args, activity, by_class};
use crate::analysis::representation::{Aligned, stability};
use crate::cli::analysis::images::{Chosen, Disturbance};
use crate::cli::analysis::{Folder, Model};
use crate::cli::exit::Usage;
use crate::cli::show::Show;
use crate::model::weights::encode;
use crate::table::{Kind, Table};
use serde_json::{Value, json};
use tch::{Device, Tensor};

/// Strengths of noise, and how often each is drawn.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct NoiseArgs {
    /// Also how alike each layer is to itself under noise of these standard deviations, that of `nct eval --suite noise`
    #[arg(long, value_delimiter = ',', value_name = "STDS")]
    noise: Vec<f64>,
    /// Draws of the noise of each
    #[arg(long, default_value_t = 4, requires = "noise", value_parser = clap::value_parser!(u32).range(2..=100))]
    repeats: u32,
}

const COLUMNS: [(&str, Kind); 6] = [
    ("model", Kind::Text),
    ("layer", Kind::Text),
    ("a", Kind::Real),
    ("b", Kind::Real),
    ("repeats", Kind::Whole),
    ("cka", Kind::Real),
];

impl NoiseArgs {
    /// What an analysis depends on; nothing without noise.
    pub(super) fn tell(&self, settings: &mut Value) {
        if !self.noise.is_empty() {
            (settings["noise"], settings["repeats"]) = (json!(self.noise), json!(self.repeats));
        }
    }

    /// # Errors
    /// A deviation that is none, or that comes twice.
    pub(super) fn check(&self) -> Result<(), Usage> {
        let odd = |(i, std): (usize, &f64)| !(*std > 0.0 && std.is_finite()) || self.noise[..i].contains(std);
        match self.noise.iter().enumerate().find(|of| odd(*of)) {
            Some((_, std)) => {
                Err(Usage(format!("--noise {std}: standard deviations are above 0, and each is named once")))
            }
            None => Ok(()),
        }
    }

    /// Shows noisy images to all networks, and writes how alike their layers are between all pairs of strengths, the
    /// clean images among them. Nothing without noise.
    pub(super) fn run(
        &self,
        args: &Args,
        (models, layers): (&[Model], &[String]),
        chosen: &Chosen,
        folder: &Folder,
        device: Device,
        show: Show,
    ) -> anyhow::Result<()> {
        if self.noise.is_empty() {
            return Ok(());
        }
        let strengths: Vec<f64> = std::iter::once(0.0).chain(self.noise.iter().copied()).collect();
        let shown = 1 + self.noise.len() * self.repeats as usize;
        let bar = show.bar("noise", (models.len() * shown * chosen.len()) as u64, "images");
        // As in the other matrices.
        let order = Tensor::from_slice(&by_class(chosen));
        let (mut rows, mut written) = (Vec::new(), Vec::new());
        for model in models {
            // By layer, strength and repeat.
            let mut aligned: Vec<Vec<Vec<Aligned>>> = layers.iter().map(|_| Vec::new()).collect();
            for &std in &strengths {
                for of in &mut aligned {
                    of.push(Vec::new());
                }
                // Without noise all are the same.
                for repeat in 0..if std > 0.0 { self.repeats } else { 1 } {
                    let noise = (std > 0.0).then_some(Disturbance::OfSuite(std));
                    let images = chosen.shown(&model.view, noise, seed(args.seed, repeat))?;
                    let images = images.index_select(0, &order);
                    let found = activity(model, layers, &images, device, &bar)?;
                    for ((of, layer), found) in aligned.iter_mut().zip(layers).zip(found) {
                        let name = format!("{} {layer} {std} {repeat}", model.name);
                        let one = Aligned::of(&found).map_err(|e| Usage(format!("{name}: {e}")))?;
                        of.last_mut().into_iter().for_each(|repeats| repeats.push(one.clone()));
                        written.extend(args.activity.then_some((name, found)));
                    }
                }
            }
            for (layer, of) in layers.iter().zip(&aligned) {
                rows.extend(self.rows(&model.name, layer, &strengths, &stability(of)));
            }
        }
        bar.clear();
        if args.activity {
            folder.write("noisy.safetensors", &encode(&written, &[])?)?;
        }
        folder.table("stability", &Table::of(&COLUMNS, &rows)?)
    }

    fn rows(&self, model: &str, layer: &str, strengths: &[f64], of: &[Vec<f64>]) -> Vec<Value> {
        let mut rows = Vec::new();
        for (a, line) in strengths.iter().zip(of) {
            rows.extend(strengths.iter().zip(line).map(|(b, cka)| {
                json!({"model": model, "layer": layer, "a": a, "b": b, "repeats": self.repeats, "cka": cka})
            }));
        }
        rows
    }
}

/// Another one for every repeat, and for no repeat of a neighbouring seed.
fn seed(seed: u64, repeat: u32) -> u64 {
    seed ^ (u64::from(repeat) << 32)
}
