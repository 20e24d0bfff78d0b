//! Which evaluations there are, as data, by the reference's names (spec/trainer 4.5).

use super::Parts;
use super::forward::Network;
use super::robustness::Grid;
use super::{Copies, EvalError, Evaluator, TaskScores};
use crate::base::{Split, Task};
use crate::corruption::{Corruption, Profile, Severity, frost};
use crate::load::{AugmentSettings, DistortSettings, Noise, NoiseLevel};

/// Which of the evaluations at the end of training are made; all, if nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinalSettings {
    /// `FinalTraining`.
    pub add_final_train_eval: bool,
    /// `FinalValidation`; of images in and out of domain.
    pub add_final_val_eval: bool,
    /// `FinalTest`; of images in and out of domain.
    pub add_final_test_eval: bool,
}

impl Default for FinalSettings {
    fn default() -> Self {
        Self { add_final_train_eval: true, add_final_val_eval: true, add_final_test_eval: true }
    }
}

/// Evaluations that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Splits as they are.
    Clean,
    /// What the reference does at the end of training.
    Final,
    /// Levels of noise on the validation split.
    Noise,
    /// Corruptions at every severity.
    Corruptions,
}

impl Suite {
    /// The name used in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Final => "final",
            Self::Noise => "noise",
            Self::Corruptions => "corruptions",
        }
    }
}

/// How labelled images are shown. Nothing is cropped, flipped or rotated in an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// As they are.
    Clean,
    /// With a level of this mixture each, or none.
    Noise(Vec<NoiseLevel>),
    /// Corrupted and noisy as training images are, with the same draws every time.
    Trained {
        /// The mixture of noise.
        noise: Vec<NoiseLevel>,
        /// The corruptions.
        distort: DistortSettings,
    },
    /// All corrupted in one way.
    Corrupted {
        /// How.
        corruption: Corruption,
        /// Set of parameters.
        profile: Profile,
        /// How much.
        severity: Severity,
        /// What is drawn depends on this and the image's number.
        seed: u64,
    },
    /// Images of another data set as they are: copies that were corrupted before.
    Stored {
        /// How.
        corruption: Corruption,
        /// How much.
        severity: Severity,
        /// Which copies.
        copies: Copies,
    },
}

impl Shown {
    /// The loader's settings for it.
    pub fn augment(&self) -> AugmentSettings {
        match self {
            Self::Clean | Self::Stored { .. } => AugmentSettings::NONE,
            Self::Noise(levels) => AugmentSettings { noise: levels.clone(), ..AugmentSettings::NONE },
            Self::Trained { noise, distort } => AugmentSettings {
                noise: noise.clone(),
                distort: Some(distort.clone()),
                ..AugmentSettings::NONE
            },
            &Self::Corrupted { corruption, profile, severity, seed } => {
                let distort = DistortSettings::fixed(corruption, profile, severity, seed);
                AugmentSettings { distort: Some(distort), ..AugmentSettings::NONE }
            }
        }
    }

    /// What its frost is made of, if some images are shown under it.
    pub fn frost_source(&self) -> Option<&'static str> {
        match self {
            Self::Corrupted { corruption: Corruption::Frost, .. } => Some(frost::source().as_str()),
            Self::Trained { distort, .. } => {
                let frosted = distort.share > 0.0 && distort.kinds.contains(&Corruption::Frost);
                frosted.then(|| frost::source().as_str())
            }
            Self::Stored { corruption: Corruption::Frost, copies, .. } => Some(copies.frost_source()),
            Self::Clean | Self::Noise(_) | Self::Corrupted { .. } | Self::Stored { .. } => None,
        }
    }

    /// As training images were, without what only moves them: with their noise and their corruptions, if they had any
    /// (spec/data 3).
    pub fn in_domain(training: &AugmentSettings) -> Self {
        let noise = training.noise.clone();
        match &training.distort {
            Some(distort) => Self::Trained { noise, distort: distort.clone() },
            None if noise.is_empty() => Self::Clean,
            None => Self::Noise(noise),
        }
    }

    /// The other domain: clean images after training with noise or corruptions, and the reference's mixture after
    /// training without.
    pub fn out_domain(training: &AugmentSettings) -> Self {
        if Self::in_domain(training) != Self::Clean {
            return Self::Clean;
        }
        let level = |std| NoiseLevel { noise: Noise::Std(std), share: 0.1 };
        Self::Noise([0.08, 0.12, 0.18, 0.26, 0.38].map(level).to_vec())
    }
}

/// Where corrupted images come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// They are made while they are shown.
    Made {
        /// Set of parameters.
        profile: Profile,
        /// Seed of what is drawn.
        seed: u64,
    },
    /// They are data sets `corruption-severity` in a folder.
    Stored(Copies),
}

impl Origin {
    /// The set of parameters; of copies from elsewhere we do not know.
    pub fn profile(&self) -> Option<Profile> {
        match self {
            Self::Made { profile, .. } => Some(*profile),
            Self::Stored(copies) => copies.made.as_ref().map(|made| made.profile),
        }
    }
}

/// Which corruptions labelled images are shown under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorruptionSuite {
    /// Where the images come from.
    pub origin: Origin,
    /// The corruptions.
    pub corruptions: Vec<Corruption>,
    /// The severities.
    pub severities: Vec<Severity>,
    /// Whose images.
    pub split: Split,
}

impl CorruptionSuite {
    /// The clean images, then every corruption at every severity, by the reference's names (spec/trainer 4.5) for its
    /// parameters. Copies that nct made are named as what is made on the fly.
    pub fn evaluations(&self) -> Vec<Evaluation> {
        let split = self.split;
        let suite = Suite::Corruptions;
        let clean =
            Evaluation { suite, mode: "clean".into(), ..Evaluation::clean(Task::Classification, split) };
        let mut all = vec![clean];
        let name = match self.origin.profile() {
            Some(Profile::ImageNet) => "fly_c_test",
            Some(Profile::Tiny) => "tiny_c_regenerated",
            None => "c_test",
        };
        for &corruption in &self.corruptions {
            all.extend(self.severities.iter().map(|&severity| Evaluation {
                suite,
                mode: format!("{name} {corruption} {severity}"),
                task: Task::Classification,
                split,
                view: self.view(corruption, severity),
            }));
        }
        all
    }

    fn view(&self, corruption: Corruption, severity: Severity) -> Shown {
        match &self.origin {
            &Origin::Made { profile, seed } => Shown::Corrupted { corruption, profile, severity, seed },
            Origin::Stored(copies) => Shown::Stored { corruption, severity, copies: copies.clone() },
        }
    }

    /// What frost is made of.
    pub fn frost_source(&self) -> &'static str {
        match &self.origin {
            Origin::Made { .. } => frost::source().as_str(),
            Origin::Stored(copies) => copies.frost_source(),
        }
    }

    /// The accuracies among `scored`, if the suite's evaluations are all there.
    pub fn grid(&self, scored: &[(Evaluation, TaskScores)]) -> Option<Grid> {
        let accuracy = |view: &Shown| {
            let found = scored.iter().find(|(e, _)| e.suite == Suite::Corruptions && e.view == *view);
            found.and_then(|(_, scores)| scores.metric("accuracy")).map(|percent| percent / 100.0)
        };
        let classes = scored.iter().find_map(|(_, scores)| match &scores.parts {
            Parts::Classes { scores, .. } => Some(scores.names.len()),
            Parts::Sessions { .. } => None,
        });
        let mut grid = Grid::new(classes?, accuracy(&Shown::Clean)?, &self.severities);
        for &corruption in &self.corruptions {
            let cell = |&severity| accuracy(&self.view(corruption, severity));
            let row: Option<Vec<f64>> = self.severities.iter().map(cell).collect();
            grid.cells.insert(corruption.to_string(), row?);
        }
        Some(grid)
    }
}

/// Deviations of the noise suite.
pub const NOISE_STDS: [f64; 7] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0];

/// One evaluation of one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// What it belongs to.
    pub suite: Suite,
    /// The reference's name for it, such as `FinalTestInDomain`; in the clean suite the split's name.
    pub mode: String,
    /// The task.
    pub task: Task,
    /// The split.
    pub split: Split,
    /// How labelled images are shown; stimuli are always shown as they are.
    pub view: Shown,
}

impl Evaluation {
    /// A split as it is.
    pub fn clean(task: Task, split: Split) -> Self {
        Self { suite: Suite::Clean, mode: split.to_string(), task, split, view: Shown::Clean }
    }
}

/// The evaluations at the end of training, in the reference's order. `tasks` are those there are data of, and
/// `training` is how training images are shown. The noise suite is not among the switches.
pub fn final_evaluations(
    settings: FinalSettings,
    tasks: &[Task],
    training: &AugmentSettings,
) -> Vec<Evaluation> {
    let (inside, outside) = (Shown::in_domain(training), Shown::out_domain(training));
    let both = [("InDomain", inside.clone()), ("OutDomain", outside)];
    let mut all = Vec::new();
    for task in Task::ALL.into_iter().filter(|task| tasks.contains(task)) {
        for (wanted, name, split) in [
            (settings.add_final_train_eval, "FinalTraining", Split::Train),
            (settings.add_final_val_eval, "FinalValidation", Split::Validation),
            (settings.add_final_test_eval, "FinalTest", Split::Test),
        ] {
            let evaluation = |domain: &str, view: &Shown| Evaluation {
                suite: Suite::Final,
                mode: format!("{name}{domain}"),
                task,
                split,
                view: view.clone(),
            };
            match (wanted, task.is_neural(), split) {
                (false, ..) => {}
                (true, true, _) => all.push(evaluation("", &Shown::Clean)),
                (true, false, Split::Train) => all.push(evaluation("", &inside)),
                (true, false, _) => all.extend(both.iter().map(|(domain, view)| evaluation(domain, view))),
            }
        }
    }
    if tasks.contains(&Task::Classification) {
        all.extend(noise_evaluations());
    }
    all
}

/// The validation images under every deviation of the noise suite.
pub fn noise_evaluations() -> Vec<Evaluation> {
    NOISE_STDS.map(noise).to_vec()
}

/// All validation images under noise of one deviation.
fn noise(std: f64) -> Evaluation {
    let level = NoiseLevel { noise: Noise::Std(std), share: 1.0 };
    Evaluation {
        suite: Suite::Noise,
        // Debug prints as Python does: 0.0, 0.05, 1.0.
        mode: format!("Validation_gauss {std:?}"),
        task: Task::Classification,
        split: Split::Validation,
        view: if std > 0.0 { Shown::Noise(vec![level]) } else { Shown::Clean },
    }
}

/// Scores of each evaluation, in order. `open` gives the data of one, which are let go of before the next;
/// `tell` hears of each before it begins, and its error ends the pass.
pub fn evaluate<E: From<EvalError>>(
    evaluations: &[Evaluation],
    net: &Network,
    open: impl Fn(&Evaluation) -> Result<Evaluator, E>,
    mut tell: impl FnMut(&Evaluation) -> Result<(), E>,
) -> Result<Vec<(Evaluation, TaskScores)>, E> {
    let mut scored = Vec::new();
    for evaluation in evaluations {
        tell(evaluation)?;
        let scores = open(evaluation)?.plain_scores(net)?;
        scored.extend(scores.into_iter().map(|scores| (evaluation.clone(), scores)));
    }
    Ok(scored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corruption::frost::Source;
    use crate::eval::Made;

    fn modes(evaluations: &[Evaluation]) -> Vec<String> {
        evaluations.iter().map(|e| format!("{}: {}", e.task, e.mode)).collect()
    }

    #[test]
    fn the_reference_s_names_in_its_order() {
        let all = final_evaluations(
            FinalSettings::default(),
            &[Task::Classification, Task::V1],
            &AugmentSettings::NONE,
        );
        let mut expected = vec![
            "v1: FinalTraining",
            "v1: FinalValidation",
            "v1: FinalTest",
            "img_classification: FinalTraining",
            "img_classification: FinalValidationInDomain",
            "img_classification: FinalValidationOutDomain",
            "img_classification: FinalTestInDomain",
            "img_classification: FinalTestOutDomain",
        ];
        let gauss = ["0.0", "0.05", "0.1", "0.2", "0.3", "0.5", "1.0"];
        let gauss = gauss.map(|std| format!("img_classification: Validation_gauss {std}"));
        expected.extend(gauss.iter().map(String::as_str));
        assert_eq!(modes(&all), expected);
    }

    #[test]
    fn domains_follow_the_noise_of_training() {
        let shown = |training: &AugmentSettings, mode: &str| {
            let all = final_evaluations(FinalSettings::default(), &[Task::Classification], training);
            all.into_iter().find(|e| e.mode == mode).unwrap().view
        };
        let view = |noise: &[NoiseLevel], mode: &str| {
            shown(&AugmentSettings { noise: noise.to_vec(), ..AugmentSettings::default() }, mode)
        };
        assert_eq!(view(&[], "FinalTestInDomain"), Shown::Clean);
        let Shown::Noise(levels) = view(&[], "FinalTestOutDomain") else { panic!("no noise") };
        assert_eq!(levels.len(), 5);
        assert!((levels.iter().map(|l| l.share).sum::<f64>() - 0.5).abs() < 1e-12, "half are clean");
        let trained = [NoiseLevel { noise: Noise::Std(0.3), share: 0.4 }];
        for mode in ["FinalTraining", "FinalValidationInDomain", "FinalTestInDomain"] {
            assert_eq!(view(&trained, mode), Shown::Noise(trained.to_vec()), "{mode}");
        }
        assert_eq!(view(&trained, "FinalValidationOutDomain"), Shown::Clean);
        assert_eq!(view(&trained, "FinalTestOutDomain"), Shown::Clean);
        let augment = view(&trained, "FinalTraining").augment();
        assert_eq!((augment.crop_padding, augment.flip, augment.rotation_degrees), (0, false, 0.0));
        let distort = DistortSettings {
            share: 0.5,
            ..DistortSettings::fixed(Corruption::ALL[0], Profile::ImageNet, Severity::ALL[2], 0)
        };
        let distort = DistortSettings { fixed_seed: None, ..distort };
        let corrupted = AugmentSettings { distort: Some(distort.clone()), ..AugmentSettings::default() };
        assert_eq!(shown(&corrupted, "FinalTestOutDomain"), Shown::Clean);
        let inside = shown(&corrupted, "FinalValidationInDomain").augment();
        assert_eq!(inside, AugmentSettings { distort: Some(distort), ..AugmentSettings::NONE });
    }

    fn copied(profile: Profile, frost: Source) -> Made {
        let frost = Some(frost);
        Made { profile, seed: 7, source: String::new(), jpeg85: None, frost, glass_swap: None }
    }

    #[test]
    fn copies_go_by_the_name_of_what_is_made_on_the_fly() {
        let named = |origin: &Origin| {
            let (corruptions, severities) = (vec![Corruption::Fog], vec![Severity::ALL[1]]);
            let suite =
                CorruptionSuite { origin: origin.clone(), corruptions, severities, split: Split::Test };
            suite.evaluations()[1].mode.clone()
        };
        let stored = |made| Origin::Stored(Copies { name: "C".to_owned(), made });
        for (profile, name) in
            [(Profile::Tiny, "tiny_c_regenerated fog 2"), (Profile::ImageNet, "fly_c_test fog 2")]
        {
            assert_eq!(named(&Origin::Made { profile, seed: 7 }), name);
            assert_eq!(named(&stored(Some(copied(profile, Source::Synthetic)))), name);
        }
        assert_eq!(named(&stored(None)), "c_test fog 2");
    }

    #[test]
    fn frost_is_said_where_it_is_shown() {
        let suite = |origin| CorruptionSuite {
            origin,
            corruptions: vec![Corruption::Frost, Corruption::Fog],
            severities: vec![Severity::ALL[0]],
            split: Split::Test,
        };
        let made = Origin::Made { profile: Profile::Tiny, seed: 0 };
        let stored = |made| Origin::Stored(Copies { name: "C".to_owned(), made });
        for (origin, source) in [
            (made, "synthetic"),
            (stored(None), "stored"),
            (stored(Some(copied(Profile::Tiny, Source::Pictures))), "pictures"),
        ] {
            let found = suite(origin).evaluations().into_iter().map(|e| e.view.frost_source());
            assert_eq!(found.collect::<Vec<_>>(), [None, Some(source), None]);
        }
        let fixed = |c| DistortSettings::fixed(c, Profile::Tiny, Severity::ALL[0], 0);
        let trained = |c| Shown::Trained { noise: Vec::new(), distort: fixed(c) }.frost_source();
        assert_eq!((trained(Corruption::Frost), trained(Corruption::Snow)), (Some("synthetic"), None));
    }

    #[test]
    fn a_switch_takes_its_evaluations_out_and_no_others() {
        let settings = FinalSettings { add_final_val_eval: false, ..FinalSettings::default() };
        let all = final_evaluations(settings, &Task::ALL, &AugmentSettings::NONE);
        assert!(!all.iter().any(|e| e.mode.starts_with("FinalValidation")));
        assert_eq!(all.iter().filter(|e| e.suite == Suite::Final).count(), 2 + 2 + 3);
        assert_eq!(all.iter().filter(|e| e.suite == Suite::Noise).count(), 7);
        let neural = final_evaluations(settings, &[Task::V4], &AugmentSettings::NONE);
        assert_eq!(neural.len(), 2, "no noise without images");
    }
}
