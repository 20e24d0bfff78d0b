//! Images of other sizes and folders than TinyImageNet's.

use crate::common::{imagenet, nct, output, raw, stderr, succeed};
use nct::base::{Split, StepIndex};
use nct::load::{AugmentSettings, PixelType, RandomResizedCrop, Source, View};
use nct::shard::{Dataset, ShardSet};
use std::fs;
use std::path::Path;

fn dataset(root: &Path) -> Dataset {
    Dataset::open(root).unwrap()
}

/// The first image of a split as shards hold it.
fn first(dataset: &Dataset, split: Split) -> Vec<u8> {
    let shard = dataset.images(split).unwrap().remove(0);
    let pixels = shard.read_column(shard.field("image").unwrap().0).unwrap();
    pixels[..dataset.manifest().image.iter().product::<u32>() as usize].to_vec()
}

#[test]
fn imagenet_is_brought_to_one_size() {
    let dir = imagenet();
    let refused = output(nct(dir.path()).args(["prepare", "raw"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--resize 256"), "{}", stderr(&refused));
    succeed(nct(dir.path()).args(["prepare", "raw", "--resize", "40", "--valid-size", "0.2"]));
    let found = dataset(&dir.path().join("shards/imagenet"));
    let rows = Split::ALL.map(|split| found.manifest().rows(split, None));
    assert_eq!((rows, found.manifest().image), ([40, 10, 10], [3, 40, 40]));
    assert!(found.manifest().settings.contains(&"resize = 40".to_owned()));
    // The shorter side becomes 40, and rows 0 to 40 of columns 9 to 49 of 59 x 40 are kept; the picture's colours
    // at its middle are those of the stored square's.
    let file = fs::read(dir.path().join("raw/imagenet/val/n01440764/ILSVRC2012_val_00000000.JPEG")).unwrap();
    let whole = turbojpeg::decompress(&file, turbojpeg::PixelFormat::RGB).unwrap().pixels;
    let stored = first(&found, Split::Test);
    for (c, plane) in stored.chunks_exact(40 * 40).enumerate() {
        for (y, x) in [(20, 20), (3, 30), (37, 2)] {
            let at = |y: f64, x: f64| whole[(y as usize * 90 + x as usize) * 3 + c];
            let expected = at((y as f64 + 0.5) * 61.0 / 40.0, (x as f64 + 9.5) * 90.0 / 59.0);
            let found = plane[y * 40 + x];
            assert!(found.abs_diff(expected) < 24, "channel {c} at {y}, {x}: {found}, not about {expected}");
        }
    }
    // Another size is another data set.
    let refused = output(nct(dir.path()).args(["prepare", "raw", "--resize", "32", "--valid-size", "0.2"]));
    assert!(stderr(&refused).contains("resize = 40"), "{}", stderr(&refused));
}

#[test]
fn a_range_of_classes_is_a_data_set_of_its_own() {
    let dir = raw();
    let prepare = |range: &str, out: &str| {
        output(nct(dir.path()).args([
            "prepare",
            "raw",
            "--only",
            "tiny-imagenet-200",
            "--out",
            out,
            "--classes",
            range,
        ]))
    };
    assert!(prepare("0..3", "all").status.success() && prepare("1..3", "two").status.success());
    let [all, two] = ["all", "two"].map(|out| dataset(&dir.path().join(out).join("tiny-imagenet-200")));
    assert_eq!(two.manifest().classes, all.manifest().classes[1..]);
    let test = |of: &Dataset| {
        let shard = of.images(Split::Test).unwrap().remove(0);
        ["label", "image"].map(|name| shard.read_column(shard.field(name).unwrap().0).unwrap())
    };
    let ([labels, images], [all_labels, all_images]) = (test(&two), test(&all));
    // Four test images a class.
    assert_eq!(
        labels.as_chunks::<4>().0.iter().map(|&l| u32::from_le_bytes(l)).collect::<Vec<_>>(),
        [0, 0, 0, 0, 1, 1, 1, 1]
    );
    assert!(images == all_images[all_images.len() / 3..] && labels.len() * 3 == all_labels.len() * 2);
    assert_eq!(two.manifest().rows(Split::Train, None) + two.manifest().rows(Split::Validation, None), 48);
    for (range, what) in [("2..4", "has 3 classes"), ("2..2", "has 3 classes"), ("2", "expected two numbers")]
    {
        let refused = prepare(range, "none");
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(what), "{}", stderr(&refused));
    }
}

/// Pixels of the first epoch's images in record order, as bytes.
fn shown(root: &Path, size: u32, augment: AugmentSettings) -> Vec<Vec<u8>> {
    use nct::load::{Batch, FillMemory};
    use nct::schedule::{Mix, Schedule, StreamSpec};
    let found = dataset(root);
    let view = View {
        size: Some([size; 2]),
        pixels: PixelType::U8,
        augment,
        ..View::new(vec![0.5; 3], vec![0.2; 3])
    };
    let source = Source::images(&found, Split::Train, &view).unwrap();
    assert_eq!(source.image, [3, size, size]);
    let stream = StreamSpec::new(source.task, source.n_records(), 8);
    let schedule = Schedule::new(vec![stream], Mix::Long { batches_per_step: 1 }, 3).unwrap();
    let mut images = vec![Vec::new(); source.n_records() as usize];
    for step in 0..schedule.steps_per_epoch() {
        let plan = schedule.step(StepIndex(step));
        let mut batch = Batch::default();
        source.fill(&schedule, &plan.batches[0], 3, &mut FillMemory::default(), &mut batch).unwrap();
        let nct::load::Pixels::U8(pixels) = &batch.pixels else { panic!("not bytes") };
        let records = schedule.records(&plan.batches[0]);
        for (record, image) in records.zip(pixels.chunks_exact(3 * (size * size) as usize)) {
            images[record.0 as usize] = image.to_vec();
        }
    }
    images
}

#[test]
fn training_sees_regions_and_evaluation_the_middle() {
    let dir = imagenet();
    succeed(nct(dir.path()).args(["prepare", "raw", "--resize", "40"]));
    let root = dir.path().join("shards/imagenet");
    let stored = shown(&root, 40, AugmentSettings::NONE);
    let middle = shown(&root, 30, AugmentSettings::NONE);
    let cut = |image: &[u8]| -> Vec<u8> {
        let rows = image.chunks_exact(1600).flat_map(|plane| plane.chunks_exact(40).skip(5).take(30));
        rows.flat_map(|row| row[5..35].to_vec()).collect()
    };
    assert_eq!(middle, stored.iter().map(|image| cut(image)).collect::<Vec<_>>());
    let crop = Some(RandomResizedCrop::default());
    let regions = shown(&root, 30, AugmentSettings { random_resized_crop: crop, ..AugmentSettings::NONE });
    let changed = regions.iter().zip(&middle).filter(|(a, b)| a != b).count();
    // The constant picture stays as it is.
    assert_eq!(
        changed,
        regions.len() - regions.iter().filter(|image| image.iter().all(|&v| v == 200)).count()
    );
    // A region of the whole image is the resized image.
    let all = RandomResizedCrop { scale: [1.0, 1.0], ratio: [1.0, 1.0] };
    let all = AugmentSettings { random_resized_crop: Some(all), ..AugmentSettings::NONE };
    assert_eq!(shown(&root, 40, all), stored);
    let view = View { size: Some([41; 2]), ..View::new(vec![0.5; 3], vec![0.2; 3]) };
    let refused = Source::images(&dataset(&root), Split::Test, &view).unwrap_err().to_string();
    assert!(refused.contains("--resize") && refused.contains("41 x 41"), "{refused}");
}

#[test]
fn recorded_stimuli_are_cut_and_scaled() {
    let dir = raw();
    let prepare = |out: &str, more: &[&str]| {
        let only = ["prepare", "raw", "--only", "mtl_monkey_dataset", "--out", out];
        succeed(nct(dir.path()).args(only).args(more));
        dataset(&dir.path().join(out).join("mtl_monkey_dataset"))
    };
    let stimulus = |dataset: &Dataset| {
        let shard = dataset.stimuli().unwrap().remove(0);
        shard.read_column(shard.field("image").unwrap().0).unwrap()
    };
    let (whole, half) = (prepare("whole", &[]), prepare("half", &["--crop", "10,6,4,0", "--subsample", "2"]));
    let channels = whole.manifest().image[0];
    assert_eq!((whole.manifest().image, half.manifest().image), ([channels, 64, 64], [channels, 24, 30]));
    let (whole, half) = (stimulus(&whole), stimulus(&half));
    let at = |y: usize, x: usize| whole[(10 + 2 * y) * 64 + 4 + 2 * x];
    let expected: Vec<u8> = (0..24).flat_map(|y| (0..30).map(move |x| at(y, x))).collect();
    assert_eq!(half[..24 * 30], expected);
    let small = prepare("small", &["--crop", "2", "--scale", "0.4"]);
    assert_eq!(small.manifest().image, [channels, 24, 24]);
    assert!(small.manifest().settings.contains(&"crop = 2,2,2,2".to_owned()));
    assert!(small.manifest().settings.contains(&"scale = 0.4".to_owned()));
    // Labelled images are not cut.
    succeed(nct(dir.path()).args(["prepare", "raw", "--out", "all", "--crop", "2", "--scale", "0.4"]));
    assert_eq!(dataset(&dir.path().join("all/tiny-imagenet-200")).manifest().image, [3, 64, 64]);
    // What nothing heeds is refused.
    for (only, flag) in [("tiny-imagenet-200", ["--crop", "2"]), ("mtl_monkey_dataset", ["--resize", "32"])] {
        let idle = ["prepare", "raw", "--out", "none", "--only", only];
        let refused = output(nct(dir.path()).args(idle).args(flag));
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(flag[0]), "{}", stderr(&refused));
    }
    let refused = output(nct(dir.path()).args(["prepare", "raw", "--out", "none", "--crop", "32"]));
    assert!(stderr(&refused).contains("the crop leaves none"), "{}", stderr(&refused));
    assert!(!dir.path().join("none").exists(), "something was left behind");
}

#[test]
fn corrupted_copies_become_a_set_each() {
    let dir = raw();
    succeed(nct(dir.path()).args(["prepare", "raw"]));
    let cells = ["--corruptions", "fog,pixelate", "--severities", "1,4", "--out", "raw/Tiny-ImageNet-C"];
    succeed(nct(dir.path()).args(["corrupt", "shards/tiny-imagenet-200"]).args(cells));
    let plan = succeed(nct(dir.path()).args(["prepare", "raw", "--dry-run"]));
    assert!(plan.contains("Tiny-ImageNet-C, 4 sets") && plan.contains("is there already"), "{plan}");
    let made = output(nct(dir.path()).args(["prepare", "raw"]));
    assert!(made.status.success() && stderr(&made).contains("Tiny-ImageNet-C, 4 sets"), "{}", stderr(&made));
    let set = ShardSet::open(&dir.path().join("shards/Tiny-ImageNet-C")).unwrap();
    let names: Vec<&str> = set.datasets().iter().map(|d| d.manifest().dataset.as_str()).collect();
    assert_eq!(names, ["fog-1", "fog-4", "pixelate-1", "pixelate-4"]);
    let manifest = set.dataset("fog-4").unwrap().manifest();
    assert_eq!(Split::ALL.map(|split| manifest.rows(split, None)), [0, 0, 12]);
    assert_eq!(manifest.classes.len(), 3);
    assert!(manifest.mean.iter().all(|&m| m > 0.1), "statistics are of the images there are");
    let folder = dir.path().join("raw/Tiny-ImageNet-C/fog/4");
    let class = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    let file = fs::read_dir(class).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    let decoded =
        turbojpeg::decompress(&fs::read(file).unwrap(), turbojpeg::PixelFormat::RGB).unwrap().pixels;
    let planes: Vec<u8> = (0..3).flat_map(|c| decoded.iter().skip(c).step_by(3).copied()).collect();
    assert_eq!(first(set.dataset("fog-4").unwrap(), Split::Test), planes);
    // The sets beside them are still found, and again nothing is made twice.
    assert_eq!(ShardSet::open(&dir.path().join("shards")).unwrap().datasets().len(), 4);
    let again = output(nct(dir.path()).args(["prepare", "raw", "--only", "Tiny-ImageNet-C"]));
    assert!(stderr(&again).contains("already prepared"), "{}", stderr(&again));
    let refused = output(nct(dir.path()).args(["prepare", "raw", "--only", "fog-9"]));
    assert!(stderr(&refused).contains("no data set fog-9"), "{}", stderr(&refused));
}

/// A neural set of six images of 8 x 8 pixels in so many channels; `save` writes the planes of each.
fn neural_set(root: &Path, channels: usize, save: impl Fn(u64, &[u8])) {
    use nct::ingest::raw::{RawSession, RawTrials, save_session};
    let ids: Vec<i64> = (1..=6).collect();
    for id in 1..=6 {
        let planes: Vec<u8> = (0..64 * channels).map(|i| (i * 37 + 11 * id) as u8).collect();
        save(id as u64, &planes);
    }
    let trials = RawTrials { responses: vec![1.0; 2 * ids.len()], ids, labels: Vec::new() };
    let (subject_id, session_id) = ("31".to_owned(), "7".to_owned());
    let (training, testing) = (trials.clone(), trials);
    save_session(root, &RawSession { subject_id, session_id, training, testing, shape: [2, 1] }).unwrap();
}

/// A PNG of planes of 8 x 8 pixels.
fn save_png(path: &Path, planes: &[u8]) {
    let (n, mut file) = (planes.len() / 64, Vec::new());
    let mut encoder = png::Encoder::new(&mut file, 8, 8);
    encoder.set_color(if n == 3 { png::ColorType::Rgb } else { png::ColorType::Grayscale });
    let pixels: Vec<u8> = (0..64).flat_map(|i| (0..n).map(move |c| planes[64 * c + i])).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, file).unwrap();
}

#[test]
fn stimuli_as_pictures_are_the_same_shards_as_arrays() {
    let dir = tempfile::tempdir().unwrap();
    let root = |kind: &str| dir.path().join(kind).join("mtl_set");
    let prepare = |kind: &str, more: &[&str]| {
        let out = format!("{kind}-shards{}", more.concat());
        let told = output(nct(dir.path()).args(["prepare", kind, "--out", &out]).args(more));
        let shards: Vec<_> = crate::common::files(&dir.path().join(out))
            .into_iter()
            .filter(|(name, _)| name.extension().is_some_and(|e| e == "nct"))
            .collect();
        (told, shards)
    };
    for (channels, array, picture) in [(1, "gray-array", "gray-picture"), (3, "array", "picture")] {
        neural_set(&root(array), channels, |id, planes| {
            nct::ingest::raw::save_image(&root(array), id, planes, 8, 8).unwrap();
        });
        neural_set(&root(picture), channels, |id, planes| {
            // What a file holds is told by its first bytes.
            let name = if id == 2 { "images/2.jpg".to_owned() } else { format!("images/{id:06}.PNG") };
            save_png(&root(picture).join(name), planes);
        });
        for more in [&[][..], &["--color", "gray"], &["--crop", "1"]] {
            let ((told, arrays), (_, pictures)) = (prepare(array, more), prepare(picture, more));
            assert!(told.status.success(), "{}", stderr(&told));
            assert!(arrays.len() == 4 && arrays == pictures, "{channels} {more:?}");
        }
    }
    // A JPEG has the pixels that libjpeg gives.
    let pixels: Vec<u8> = (0..64 * 3).map(|i| (i * 2) as u8).collect();
    let format = turbojpeg::PixelFormat::RGB;
    let image = turbojpeg::Image { pixels: &pixels[..], width: 8, pitch: 24, height: 8, format };
    let jpeg = turbojpeg::compress(image, 90, turbojpeg::Subsamp::None).unwrap();
    fs::remove_file(root("picture").join("images/000001.PNG")).unwrap();
    fs::write(root("picture").join("images/1.jpeg"), &jpeg[..]).unwrap();
    succeed(nct(dir.path()).args(["prepare", "picture", "--out", "jpeg"]));
    let shard = dataset(&dir.path().join("jpeg/mtl_set")).stimuli().unwrap().remove(0);
    let stored = shard.read_column(shard.field("image").unwrap().0).unwrap();
    let shown = turbojpeg::decompress(&jpeg, format).unwrap().pixels;
    assert!((0..64).all(|i| (0..3).all(|c| stored[64 * c + i] == shown[3 * i + c])));
    // Gray and colour together.
    save_png(&root("picture").join("images/000006.PNG"), &[9; 64]);
    let refused = output(nct(dir.path()).args(["prepare", "picture"]));
    assert_eq!(refused.status.code(), Some(2));
    for part in ["000006.PNG", "`--color gray`"] {
        assert!(stderr(&refused).contains(part), "{}", stderr(&refused));
    }
    succeed(nct(dir.path()).args(["prepare", "picture", "--color", "gray"]));
}

#[test]
fn a_recording_that_the_reference_leaves_out_is_told_in_one_line() {
    let dir = raw();
    let sessions = dir.path().join("raw/mtl_oracle_dataset/neuronal_data");
    let first = fs::read_dir(&sessions).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    fs::rename(first, sessions.join("CSRF19_V4_3653663964522.pickle")).unwrap();
    let told = |more: &[&str]| {
        let out = output(nct(dir.path()).args(["prepare", "raw"]).args(more));
        assert!(out.status.success(), "{}", stderr(&out));
        let all = format!("{}{}", String::from_utf8_lossy(&out.stdout), stderr(&out));
        all.lines().filter(|line| line.contains("CSRF19_V4_3653663964522.pickle")).count()
    };
    assert_eq!([told(&["--dry-run"]), told(&[]), told(&[]), told(&["--dry-run"])], [1; 4]);
    assert_eq!(told(&["--only", "mtl_monkey_dataset"]), 0);
    let found = dataset(&dir.path().join("shards/mtl_oracle_dataset"));
    assert_eq!(found.manifest().sessions.len(), 1);
}

/// The script and the commands that follow it.
#[test]
fn the_script_in_the_documentation_writes_a_neural_set() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/data.md")).unwrap();
    let (_, rest) = text.split_once("```python\n").unwrap();
    let (script, rest) = rest.split_once("```").unwrap();
    let (commands, _) = rest.split_once("```sh\n").unwrap().1.split_once("```").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script.py");
    fs::write(&path, format!("import os\nos.chdir({:?})\n{script}", dir.path())).unwrap();
    if crate::common::python(path.to_str().unwrap(), "numpy", &[]).is_none() {
        return;
    }
    let command = |name: &str| {
        let line = commands.lines().find(|line| line.starts_with(name)).unwrap();
        line.split('#').next().unwrap().split_whitespace().skip(1).collect::<Vec<_>>()
    };
    succeed(nct(dir.path()).args(command("nct prepare")));
    let text = succeed(nct(dir.path()).args(command("nct inspect")).arg("--json"));
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    // 48 of the 60 images are on the training side, 50 are shown there, and 10 four times in the test.
    let session = |i: usize| &rows[i]["sessions"][0];
    let number = |i: usize, key: &str| session(i)[key].as_u64().unwrap();
    assert_eq!(number(0, "samples") + number(1, "samples"), 50);
    assert_eq!(number(0, "images") + number(1, "images"), 50);
    assert!((38..=48).contains(&number(0, "samples")));
    assert_eq!(["samples", "images"].map(|key| number(2, key)), [40, 10]);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!((&row["dataset"], row["sessions"].as_array().unwrap().len()), (&"my_set".into(), 1));
        assert_eq!((&session(i)["id"], &session(i)["subject"]), (&"m1_day1".into(), &"m1".into()));
        assert_eq!(number(i, "neurons"), 20);
        assert_eq!(row["image"], serde_json::json!([1, 64, 64]));
    }
    let shard = dataset(&dir.path().join("shards/my_set")).stimuli().unwrap().remove(0);
    assert_eq!(shard.n_rows(), 60);
}
