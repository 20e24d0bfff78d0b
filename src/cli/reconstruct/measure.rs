//! What reconstructions are like: metrics, comparisons of networks, pictures, trajectories.

use super::super::analysis::images::{Chosen, Disturbance};
use super::super::analysis::{Folder, Model};
use super::super::exit::Usage;
use super::Sample;
use crate::analysis::ascent::Search;
use crate::analysis::content::{BANDS, Plane, bands, fidelity, over_log_budgets, shares, spectrum_slope};
use crate::analysis::saliency::{SPECTRAL_RESIDUAL, agreement, energy, spectral_residual};
use crate::analysis::statistics::{interval, mean, pearson, wilcoxon};
use crate::base::Fingerprint;
use crate::figure::Picture;
use crate::load::View;
use crate::model::weights::{Weights, encode};
use crate::table::{Kind, Table};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind as TensorKind, Tensor};

const METRICS: [(&str, Kind); 39] = [
    ("model", Kind::Text),
    ("layer", Kind::Text),
    ("image", Kind::Whole),
    ("class", Kind::Text),
    ("disturbance", Kind::Text),
    ("budget", Kind::Real),
    ("seed", Kind::Whole),
    ("steps", Kind::Whole),
    ("norm", Kind::Real),
    ("objective", Kind::Real),
    ("objective_before_last_step", Kind::Real),
    ("response_error", Kind::Real),
    ("correlation", Kind::Real),
    ("ssim", Kind::Real),
    ("psnr", Kind::Real),
    ("spectrum_slope", Kind::Real),
    ("content_correlation", Kind::Real),
    ("noise_correlation", Kind::Real),
    ("content_minus_noise", Kind::Real),
    ("content_error", Kind::Real),
    ("noise_error", Kind::Real),
    ("content_gain", Kind::Real),
    ("noise_gain", Kind::Real),
    ("content_share", Kind::Real),
    ("residual_share", Kind::Real),
    ("content_share_band_1", Kind::Real),
    ("content_share_band_2", Kind::Real),
    ("content_share_band_3", Kind::Real),
    ("content_share_band_4", Kind::Real),
    ("gradient_content_share", Kind::Real),
    ("saliency", Kind::Text),
    ("saliency_correlation", Kind::Real),
    ("saliency_rank_correlation", Kind::Real),
    ("saliency_log_correlation", Kind::Real),
    ("saliency_weighted_energy", Kind::Real),
    ("saliency_excess", Kind::Real),
    ("saliency_partial", Kind::Real),
    (OF_DIFFERENCE, Kind::Real),
    ("picture", Kind::Text),
];
const TRAJECTORY: [(&str, Kind); 7] = [
    ("model", Kind::Text),
    ("image", Kind::Whole),
    ("budget", Kind::Real),
    ("seed", Kind::Whole),
    ("step", Kind::Whole),
    ("objective", Kind::Real),
    ("norm", Kind::Real),
];
const COMPARISON: [(&str, Kind); 10] = [
    ("metric", Kind::Text),
    ("model", Kind::Text),
    ("baseline", Kind::Text),
    ("images", Kind::Whole),
    ("mean", Kind::Real),
    ("baseline_mean", Kind::Real),
    ("difference", Kind::Real),
    ("low", Kind::Real),
    ("high", Kind::Real),
    ("wilcoxon_p", Kind::Real),
];
/// Correlation of saliency with the energy that a network's image has and the first network's has not.
const OF_DIFFERENCE: &str = "saliency_of_difference";
/// What networks are compared in, image by image.
const COMPARED: [&str; 11] = [
    "content_minus_noise",
    "content_share",
    "content_correlation",
    "noise_correlation",
    "gradient_content_share",
    "correlation",
    "ssim",
    "response_error",
    "saliency_excess",
    "saliency_partial",
    OF_DIFFERENCE,
];

/// Where saliency is from.
pub(super) struct Saliency {
    pub(super) name: String,
    /// Of supplied maps.
    pub(super) digest: Option<String>,
    /// A map for each of the chosen images, if they were supplied.
    maps: Option<Vec<Plane>>,
}

/// Reads supplied maps of the chosen images.
pub(super) fn saliency(path: Option<&Path>, chosen: &Chosen) -> anyhow::Result<Saliency> {
    let Some(path) = path else {
        return Ok(Saliency { name: SPECTRAL_RESIDUAL.to_owned(), digest: None, maps: None });
    };
    let lacks = |row: u64| Usage(format!("{}: there is no saliency map of image {row}", path.display()));
    let maps: Vec<Plane> = if path.is_dir() {
        let read = |&row: &u64| gray_png(&path.join(format!("{row}.png")));
        chosen.rows.iter().map(read).collect::<anyhow::Result<_>>()?
    } else {
        let file = Weights::read(path)?;
        let find = |&row: &u64| -> anyhow::Result<Plane> {
            let found = file.tensors.iter().find(|(name, _)| *name == row.to_string());
            let (_, map) = found.ok_or_else(|| lacks(row))?;
            let map = if map.dim() == 2 { map.unsqueeze(0) } else { map.shallow_clone() };
            if map.dim() != 3 {
                return Err(Usage(format!("{}: map {row} is no matrix", path.display())).into());
            }
            Ok(Plane::of(&map)?)
        };
        chosen.rows.iter().map(find).collect::<anyhow::Result<_>>()?
    };
    let values = |map: &Plane| map.values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<u8> = maps.iter().flat_map(values).collect();
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Saliency { name, digest: Some(Fingerprint::of(&bytes).to_string()), maps: Some(maps) })
}

fn gray_png(path: &Path) -> anyhow::Result<Plane> {
    let wrong = |what: String| Usage(format!("{}: {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|e| wrong(e.to_string()))?;
    let size = reader.output_buffer_size().ok_or_else(|| wrong("is too large".to_owned()))?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).map_err(|e| wrong(e.to_string()))?;
    let samples = info.color_type.samples();
    let values =
        pixels[..info.buffer_size()].chunks_exact(samples).map(|pixel| f64::from(pixel[0])).collect();
    Ok(Plane { values, width: info.width as usize })
}

/// A batch of reconstructions with what they are measured against; tensors have a row a sample, on the CPU.
pub(super) struct Measured<'a> {
    pub(super) model: &'a str,
    /// What pixels were less and divided by, means over channels.
    pub(super) scale: [f64; 2],
    pub(super) view: &'a View,
    pub(super) chosen: &'a Chosen,
    /// Root of the channels that the network shows each searched one to: what norms are times of all that it sees.
    pub(super) root: f64,
    pub(super) samples: &'a [Sample],
    pub(super) clean: Tensor,
    pub(super) targets: Tensor,
    pub(super) images: Tensor,
    /// Of the layer: what was to be matched, and what was found; if it is written.
    pub(super) activity: Option<[Tensor; 2]>,
    pub(super) gradients: Tensor,
    pub(super) values: Vec<f64>,
    pub(super) errors: Vec<f64>,
    pub(super) search: &'a Search,
}

/// Everything about reconstructions that is kept.
pub(super) struct Measures {
    layer: String,
    disturbance: Option<Disturbance>,
    saliency: Saliency,
    rows: Vec<Value>,
    trajectory: Vec<Value>,
    /// By the names that they are written under.
    tensors: BTreeMap<String, Tensor>,
    activity: BTreeMap<String, Tensor>,
    pictures: BTreeMap<String, Picture>,
    /// The first network, and where its images have their energy, by what they are of.
    first: Option<(String, BTreeMap<Place, Vec<f64>>)>,
}

/// Row of the image, bits of the budget, and seed.
type Place = (u64, u64, u64);

impl Measures {
    pub(super) fn new(layer: String, disturbance: Option<Disturbance>, saliency: Saliency) -> Self {
        Self {
            layer,
            disturbance,
            saliency,
            rows: Vec::new(),
            trajectory: Vec::new(),
            tensors: BTreeMap::new(),
            activity: BTreeMap::new(),
            pictures: BTreeMap::new(),
            first: None,
        }
    }

    pub(super) fn add(&mut self, found: &Measured<'_>) -> anyhow::Result<()> {
        for i in 0..found.samples.len() {
            let row = self.row(found, i)?;
            self.rows.push(row);
        }
        for logged in &found.search.log {
            for (i, sample) in found.samples.iter().enumerate() {
                self.trajectory.push(json!({
                    "model": found.model, "image": found.chosen.rows[sample.image], "budget": sample.budget,
                    "seed": sample.seed, "step": logged.step, "objective": logged.values[i],
                    "norm": logged.norms[i] * found.root,
                }));
            }
        }
        Ok(())
    }

    fn row(&mut self, found: &Measured<'_>, i: usize) -> anyhow::Result<Value> {
        let (sample, at) = (found.samples[i], i as i64);
        let number = found.chosen.rows[sample.image];
        let image = found.images.get(at);
        let [x, clean, target] =
            [Plane::of(&image)?, Plane::of(&found.clean.get(at))?, Plane::of(&found.targets.get(at))?];
        // Of what the constraint is on: before a transformation, if there is one.
        let norm = found.search.images.get(at).norm().double_value(&[]) * found.root;
        let near = fidelity(&x, &clean, found.scale);
        let last = found.search.log.last().and_then(|logged| logged.values.get(i)).copied();
        let steps = found.search.ended[i].map_or(found.search.step, |step| step + 1);
        let mut row = json!({
            "model": found.model, "layer": self.layer, "image": number,
            "class": found.chosen.classes[sample.image], "budget": sample.budget, "seed": sample.seed,
            "steps": steps, "norm": norm, "objective": found.values[i],
            "objective_before_last_step": last, "response_error": found.errors[i],
            "correlation": near.correlation, "ssim": near.ssim, "psnr": near.psnr,
            "spectrum_slope": spectrum_slope(&x)?,
        });
        if let Some(disturbance) = self.disturbance {
            row["disturbance"] = json!(disturbance.name());
            disturbed(&mut row, &x, &clean, &target, &found.gradients.get(at))?;
        }
        let map = match &self.saliency.maps {
            Some(maps) => found.chosen.map(&maps[sample.image], found.view)?,
            None => spectral_residual(&clean)?,
        };
        let salient = agreement(&x, &clean, &map)?;
        row["saliency"] = json!(self.saliency.name);
        for (key, value) in [
            ("saliency_correlation", salient.correlation),
            ("saliency_rank_correlation", salient.rank_correlation),
            ("saliency_log_correlation", salient.log_correlation),
            ("saliency_weighted_energy", salient.weighted_energy),
            ("saliency_excess", salient.excess),
            ("saliency_partial", salient.partial),
        ] {
            row[key] = json!(value);
        }
        if let Some(value) =
            self.beside_first(found.model, (number, sample.budget.to_bits(), sample.seed), &x, &map)?
        {
            row[OF_DIFFERENCE] = json!(value);
        }
        let name = format!("{} budget {} seed {} image {number}", found.model, sample.budget, sample.seed);
        row["picture"] = json!(self.pictures(found, i, &name, &x, &clean));
        self.keep(found, i, name);
        Ok(row)
    }

    /// Keeps a reconstruction by its name and, once a network, what it is to be like: images, and the layer's activity.
    fn keep(&mut self, found: &Measured<'_>, i: usize, name: String) {
        let (at, number) = (i as i64, found.chosen.rows[found.samples[i].image]);
        let [clean, target] =
            ["clean", "target"].map(|which| format!("{} {which} image {number}", found.model));
        if let Some([targets, seen]) = &found.activity {
            let _ = self.activity.entry(target.clone()).or_insert_with(|| targets.get(at).copy());
            self.activity.insert(name.clone(), seen.get(at));
        }
        let _ = self.tensors.entry(clean).or_insert_with(|| found.clean.get(at).copy());
        let _ = self.tensors.entry(target).or_insert_with(|| found.targets.get(at).copy());
        self.tensors.insert(name, found.images.get(at));
    }

    /// Keeps the first network's energies, and sets those of others beside them; none of those that are not the first's
    /// images, or of another size.
    fn beside_first(
        &mut self,
        model: &str,
        place: Place,
        x: &Plane,
        map: &Plane,
    ) -> anyhow::Result<Option<f64>> {
        let own = energy(x)?;
        let (first, energies) = self.first.get_or_insert_with(|| (model.to_owned(), BTreeMap::new()));
        if first == model {
            energies.insert(place, own);
            return Ok(None);
        }
        let Some(other) = energies.get(&place).filter(|other| other.len() == own.len()) else {
            return Ok(None);
        };
        let difference: Vec<f64> = own.iter().zip(other).map(|(a, b)| a - b).collect();
        Ok(Some(pearson(&difference, &map.values)))
    }

    /// Keeps the picture of a reconstruction, at the contrast that fits its image best, and those of the image as it is and as it
    /// was shown; gives the name of the first.
    fn pictures(&mut self, found: &Measured<'_>, i: usize, name: &str, x: &Plane, clean: &Plane) -> String {
        let (at, number) = (i as i64, found.chosen.rows[found.samples[i].image]);
        let picture = |image: &Tensor| picture(image, found.view);
        let path = |name: &str| format!("pictures/{}.png", slug(name));
        let _ = self
            .pictures
            .entry(path(&format!("image {number}")))
            .or_insert_with(|| picture(&found.clean.get(at)));
        if self.disturbance.is_some() {
            let shown = path(&format!("image {number} shown"));
            let _ = self.pictures.entry(shown).or_insert_with(|| picture(&found.targets.get(at)));
        }
        let own = path(name);
        self.pictures.insert(own.clone(), picture(&fitted(&found.images.get(at), x, clean)));
        own
    }

    /// Writes everything; the metrics, with which the analysis is done, last.
    pub(super) fn write(self, folder: &Folder, models: &[Model]) -> anyhow::Result<()> {
        for (name, picture) in &self.pictures {
            folder.write(name, &picture.png(1)?)?;
        }
        let named =
            |tensors: BTreeMap<String, Tensor>| tensors.into_iter().collect::<Vec<(String, Tensor)>>();
        folder.write("images.safetensors", &encode(&named(self.tensors), &[])?)?;
        if !self.activity.is_empty() {
            folder.write("activity.safetensors", &encode(&named(self.activity), &[])?)?;
        }
        folder.table("trajectory", &Table::of(&TRAJECTORY, &self.trajectory)?)?;
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        folder.table("comparison", &Table::of(&COMPARISON, &comparisons(&self.rows, &names))?)?;
        folder.finish(&Table::of(&METRICS, &self.rows)?)
    }
}

/// Content against noise (spec/reconstruction 1.9, protocol A).
fn disturbed(
    row: &mut Value,
    x: &Plane,
    clean: &Plane,
    target: &Plane,
    gradient: &Tensor,
) -> anyhow::Result<()> {
    let noise = target.values.iter().zip(&clean.values).map(|(t, s)| t - s).collect();
    let noise = Plane { values: noise, width: clean.width };
    let found = shares(x, clean, &noise);
    let first = shares(&Plane::of(gradient)?, clean, &noise);
    let bands = bands(x, clean, &noise)?;
    let error = |correlation: f64| 1.0 - correlation * correlation;
    for (key, value) in [
        ("content_correlation", found.content_correlation),
        ("noise_correlation", found.noise_correlation),
        ("content_minus_noise", found.content_correlation - found.noise_correlation),
        ("content_error", error(found.content_correlation)),
        ("noise_error", error(found.noise_correlation)),
        ("content_gain", found.gains[0]),
        ("noise_gain", found.gains[1]),
        ("content_share", found.content_share),
        ("residual_share", found.residual_share),
        ("gradient_content_share", first.content_share),
    ] {
        row[key] = json!(value);
    }
    for (i, share) in bands.iter().enumerate().take(BANDS.len()) {
        row[format!("content_share_band_{}", i + 1)] = json!(share);
    }
    Ok(())
}

/// A reconstruction with the mean of its image, and with the contrast that is nearest to it.
fn fitted(image: &Tensor, x: &Plane, clean: &Plane) -> Tensor {
    let (level, own) = (mean(&clean.values), mean(&x.values));
    let sums = x.values.iter().zip(&clean.values).fold([0.0; 2], |[both, squares], (x, s)| {
        [both + (x - own) * (s - level), squares + (x - own).powi(2)]
    });
    let scale = sums[0] / sums[1];
    // Of an image that is nothing like its own, contrast as it is.
    let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
    (image - own) * scale + level
}

/// A normalised image `[channels, height, width]` as bytes, what is beyond them cut off.
pub(in crate::cli) fn picture(image: &Tensor, view: &View) -> Picture {
    let [height, width] = [1, 2].map(|axis| image.size()[axis] as u32);
    let channel = |c: usize| c.min(view.mean.len() - 1);
    let planes: Vec<Tensor> = (0..image.size()[0])
        .map(|c| {
            let of = channel(c as usize);
            ((image.get(c) * view.std[of] + view.mean[of]) * 255.0).round().clamp(0.0, 255.0)
        })
        .collect();
    let last = Tensor::stack(&planes, -1).to_kind(TensorKind::Uint8);
    let pixels = Vec::<u8>::try_from(last.contiguous().view([-1])).unwrap_or_default();
    Picture { extent: [width, height], pixels, value: f64::NAN }
}

/// A name as part of a path.
pub(in crate::cli) fn slug(name: &str) -> String {
    let keep = |c: char| if c.is_alphanumeric() || ".-_".contains(c) { c } else { '-' };
    name.chars().map(keep).collect()
}

/// A metric of each image of a model: mean over seeds, and over the logarithm of budgets.
fn by_image(rows: &[Value], model: &str, metric: &str) -> BTreeMap<u64, f64> {
    let mut found: BTreeMap<u64, BTreeMap<u64, Vec<f64>>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["model"] == model) {
        let (image, budget) = (row["image"].as_u64(), row["budget"].as_f64());
        if let (Some(image), Some(budget), Some(value)) = (image, budget, row[metric].as_f64()) {
            // Bits of positive numbers are in their order.
            found.entry(image).or_default().entry(budget.to_bits()).or_default().push(value);
        }
    }
    let over = |budgets: BTreeMap<u64, Vec<f64>>| {
        let points: Vec<(f64, f64)> =
            budgets.into_iter().map(|(budget, values)| (f64::from_bits(budget), mean(&values))).collect();
        over_log_budgets(&points)
    };
    found.into_iter().map(|(image, budgets)| (image, over(budgets))).collect()
}

/// Each network against the first, image by image.
fn comparisons(rows: &[Value], models: &[&str]) -> Vec<Value> {
    let Some((baseline, others)) = models.split_first() else { return Vec::new() };
    let mut found = Vec::new();
    for metric in COMPARED {
        // What is of a difference already is compared with 0.
        let is_difference = metric == OF_DIFFERENCE;
        let of_baseline = by_image(rows, baseline, metric);
        for model in others {
            let own = by_image(rows, model, metric);
            let both: Vec<(f64, f64)> = own
                .iter()
                .filter_map(|(image, v)| {
                    Some((*v, if is_difference { 0.0 } else { *of_baseline.get(image)? }))
                })
                .collect();
            if both.is_empty() {
                continue;
            }
            let differences: Vec<f64> = both.iter().map(|(a, b)| a - b).collect();
            let spread = interval(&differences, 0);
            // One image says nothing of others.
            let [low, high] = spread.bounds.map(|end| (both.len() > 1).then_some(end));
            let side = |of: fn(&(f64, f64)) -> f64| mean(&both.iter().map(of).collect::<Vec<f64>>());
            found.push(json!({
                "metric": metric, "model": model, "baseline": baseline, "images": both.len(),
                "mean": side(|b| b.0), "baseline_mean": (!is_difference).then(|| side(|b| b.1)), "difference": spread.mean,
                "low": low, "high": high, "wilcoxon_p": wilcoxon(&differences),
            }));
        }
    }
    found
}

/// Means over images and seeds, for people: a row a model and budget.
pub(super) fn summary(root: &Path) -> anyhow::Result<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(root.join("metrics.jsonl"))?;
    let rows: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut places: Vec<(String, f64)> = Vec::new();
    for row in &rows {
        let place =
            (row["model"].as_str().unwrap_or_default().to_owned(), row["budget"].as_f64().unwrap_or(0.0));
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let of = |(model, budget): (String, f64)| {
        let of_place = |row: &&Value| row["model"] == model.as_str() && row["budget"] == budget;
        let told = |key: &str| {
            let values: Vec<f64> = rows.iter().filter(of_place).filter_map(|row| row[key].as_f64()).collect();
            if values.is_empty() { String::new() } else { format!("{:.3}", mean(&values)) }
        };
        let values = ["correlation", "ssim", "response_error", "content_share"].map(told);
        [model.clone(), budget.to_string()].into_iter().chain(values).collect()
    };
    Ok(places.into_iter().map(of).collect())
}
