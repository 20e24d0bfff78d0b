//! `nct corrupt` from outside.

use crate::common::{files, nct, output, raw, stderr, succeed};
use nct::base::Split;
use nct::corruption::{Corruption, Extent, ImageKey, Jpeg, Manner, Profile, Scratch, Severity};
use nct::shard::ShardSet;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Sample data and shards of its labelled images, in the colours of `color`.
fn images(color: &str) -> tempfile::TempDir {
    let dir = raw();
    let what = ["prepare", "raw", "--only", "tiny-imagenet-200", "--color", color];
    succeed(nct(dir.path()).args(what));
    dir
}

fn corrupt(dir: &Path, args: &str) -> String {
    succeed(nct(dir).args(["corrupt", "shards"]).args(args.split(' ')))
}

#[test]
fn folders_have_the_published_layout_and_do_not_depend_on_threads() {
    let dir = images("keep");
    let (dir, cells) = (dir.path(), "--corruptions snow,jpeg_compression --severities 4,1 --seed 3");
    let lines = corrupt(dir, &format!("--out one --threads 1 --json {cells}"));
    corrupt(dir, &format!("--out two --threads 2 {cells}"));
    let (one, two) = (files(&dir.join("one")), files(&dir.join("two")));
    assert!(one == two);
    // 3 classes of 4 test images, in 4 cells.
    assert_eq!(one.len(), 48);
    let names: Vec<String> = one.iter().map(|(path, _)| path.display().to_string()).collect();
    assert!(names[0].starts_with("jpeg_compression/1/n1000"), "{names:?}");
    assert!(names[47].starts_with("snow/4/n1000"), "{names:?}");
    assert!(one.iter().all(|(path, _)| path.extension().is_some_and(|e| e == "JPEG")), "{names:?}");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["corruption"], "snow");
    let bytes: usize = one.iter().map(|(_, file)| file.len()).sum();
    assert_eq!(lines.iter().map(|line| line["bytes"].as_u64().unwrap()).sum::<u64>(), bytes as u64);

    corrupt(dir, &format!("--out other --seed 4 {}", &cells[..cells.len() - 9]));
    let other = files(&dir.join("other"));
    assert!(one[..24] == other[..24] && one[24..] != other[24..], "only snow depends on the seed");
    assert!(fs::read_dir(dir).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().starts_with('.')));
}

/// The first test image of a data set, and its id.
fn first_image(root: &Path) -> (Vec<u8>, u32, [u32; 3]) {
    let set = ShardSet::open(root).unwrap();
    let dataset = &set.datasets()[0];
    let shard = dataset.images(Split::Test).unwrap().remove(0);
    let column = |name: &str| shard.read_column(shard.field(name).unwrap().0).unwrap();
    let shape = dataset.manifest().image;
    let id = u32::from_le_bytes(*column("id").first_chunk().unwrap());
    (column("image")[..shape.iter().product::<u32>() as usize].to_vec(), id, shape)
}

#[test]
fn shards_hold_what_the_library_gives_and_are_sound() {
    for (color, profile) in [("keep", Profile::ImageNet), ("gray", Profile::Tiny)] {
        let dir = images(color);
        let cells =
            format!("--layout shards --profile {profile} --corruptions fog,frost --severities 2 --seed 9");
        corrupt(dir.path(), &format!("--out corrupted {cells}"));
        succeed(nct(dir.path()).args(["verify", "corrupted", "--deep"]));
        let frost = |cell: &str| {
            let manifest = fs::read_to_string(dir.path().join("corrupted").join(cell).join("manifest.json"));
            manifest.unwrap().contains("\"frost_source = synthetic\"")
        };
        assert!(frost("frost-2") && !frost("fog-2"));
        let (before, id, [channels, height, width]) = first_image(&dir.path().join("shards"));
        let (after, same_id, shape) = first_image(&dir.path().join("corrupted/fog-2"));
        assert_eq!((id, [channels, height, width]), (same_id, shape));
        let extent = Extent { channels: 3, height: height as usize, width: width as usize };
        let mut expected = before.repeat(3 / channels as usize);
        let key = ImageKey { seed: 9, image: u64::from(id) };
        let severity = Severity::new(2).unwrap();
        Corruption::Fog.apply(profile, severity, key, &mut expected, extent, &mut Scratch::new());
        if profile == Profile::Tiny {
            Jpeg::default().round_trip(&mut expected, extent, Profile::QUALITY).unwrap();
        }
        if channels == 1 {
            let n = extent.plane();
            let luma = |i: usize| nct::base::color::luma(expected[i], expected[n + i], expected[2 * n + i]);
            expected = (0..n).map(luma).collect();
        }
        assert!(after == expected, "{color}");
    }
}

#[test]
fn glass_and_jpeg_are_as_asked_for_and_manifests_say_so() {
    let dir = images("keep");
    let cells = "--layout shards --corruptions fog,glass_blur --severities 1 --seed 9";
    let (before, id, [channels, height, width]) = first_image(&dir.path().join("shards"));
    let extent = Extent { channels: channels as usize, height: height as usize, width: width as usize };
    let key = ImageKey { seed: 9, image: u64::from(id) };
    for (profile, jpeg85) in [(Profile::Tiny, false), (Profile::ImageNet, true)] {
        let [plain, other] = ["plain", "other"].map(|name| format!("{name}-{profile}"));
        corrupt(dir.path(), &format!("--out {plain} --profile {profile} {cells}"));
        let asked = format!("--profile {profile} --glass-swap --jpeg85 {jpeg85} --json");
        let told = corrupt(dir.path(), &format!("--out {other} {asked} {cells}"));
        assert_eq!(told.matches(&format!("\"jpeg85\":{jpeg85}")).count(), 2, "{told}");
        assert_eq!(told.matches("\"glass_swap\":true").count(), 1, "{told}");
        for corruption in [Corruption::Fog, Corruption::GlassBlur] {
            let [plain, other] =
                [&plain, &other].map(|set| dir.path().join(set).join(format!("{corruption}-1")));
            let says = |root: &Path, what: &str| {
                fs::read_to_string(root.join("manifest.json")).unwrap().contains(what)
            };
            let glass = corruption == Corruption::GlassBlur;
            assert!(says(&other, &format!("\"jpeg85 = {jpeg85}\"")), "{corruption} {profile}");
            assert_eq!(says(&other, "\"glass_swap = true\""), glass, "{corruption} {profile}");
            assert!(!says(&plain, "jpeg85") && !says(&plain, "glass_swap"), "{corruption} {profile}");
            let expected = |glass_swap, jpeg: bool| {
                let (mut image, manner) = (before.clone(), Manner { profile, glass_swap });
                let severity = Severity::new(1).unwrap();
                corruption.apply(manner, severity, key, &mut image, extent, &mut Scratch::new());
                if jpeg {
                    Jpeg::default().round_trip(&mut image, extent, Profile::QUALITY).unwrap();
                }
                image
            };
            assert!(first_image(&plain).0 == expected(false, !jpeg85), "{corruption} {profile}");
            assert!(first_image(&other).0 == expected(true, jpeg85), "{corruption} {profile}");
            assert!(expected(true, false) != expected(true, true), "{corruption} {profile}");
        }
    }
}

#[test]
fn the_sheet_is_a_picture_and_bad_requests_leave_nothing() {
    let dir = images("gray");
    corrupt(dir.path(), "--sheet sheet.png --image 2 --profile i");
    assert!(fs::read(dir.path().join("sheet.png")).unwrap().starts_with(b"\x89PNG"));
    fs::create_dir(dir.path().join("there")).unwrap();
    let before = files(dir.path());
    for (args, part) in [
        ("--out there", "there: is there already"),
        ("--out x --corruptions rain", "no corruption \"rain\""),
        ("--out x --severities 6", "no severity \"6\""),
        ("--out x --profile tiny", "no profile \"tiny\""),
        ("--out x --jpeg85 false", "`--jpeg85 false` needs `--layout shards`"),
        ("--sheet y.png --jpeg85 true", "--jpeg85"),
        ("--sheet y.png --image 12", "image 12 of test, which has 12 images"),
        ("", "--out"),
    ] {
        let mut command = nct(dir.path());
        let out = output(command.args(["corrupt", "shards"]).args(args.split_whitespace()));
        assert_eq!(out.status.code(), Some(2), "{args}");
        assert!(stderr(&out).contains(part), "{args}: {}", stderr(&out));
    }
    assert!(before == files(dir.path()));
}

#[test]
fn frost_is_made_of_the_published_pictures_or_of_none() {
    let dir = images("keep");
    let (dir, frost) = (dir.path(), "--corruptions frost --severities 3");
    let small = dir.join("small");
    fs::create_dir(&small).unwrap();
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 20, 10);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[90; 600]).unwrap();
    let corrupted = |args: &str, set: &str| {
        let mut command = nct(dir);
        command.args(["corrupt", "shards"]).args(args.split(' ')).env("NCT_FROST", set);
        output(&mut command)
    };
    let before = files(&dir.join("shards"));
    for (args, set, what) in [
        (format!("--out x {frost}"), "small", "small/frost1.png: No such file"),
        (format!("--out x --frost small {frost}"), "elsewhere", "small/frost1.png: No such file"),
        (format!("--out x {frost}"), "small", "small/frost1.png: has SHA-256 "),
        (
            "--sheet x.png".to_owned(),
            "small",
            "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
        ),
    ] {
        if what.contains("SHA") {
            fs::write(small.join("frost1.png"), &png).unwrap();
        }
        let out = corrupted(&args, set);
        assert_eq!(out.status.code(), Some(2), "{args}: {}", stderr(&out));
        assert!(
            stderr(&out).contains(what) && stderr(&out).contains("NCT_FROST"),
            "{args}: {}",
            stderr(&out)
        );
        assert!(!dir.join("x").exists() && !dir.join("x.png").exists(), "{args}");
    }
    // Nothing is read for what has no frost, and an empty name is none.
    assert!(corrupted("--out fog --corruptions fog --severities 3", "small").status.success());
    let out = corrupted(&format!("--out textures --json {frost}"), "");
    assert!(
        String::from_utf8_lossy(&out.stdout).contains("\"frost_source\":\"synthetic\""),
        "{}",
        stderr(&out)
    );
    assert!(before == files(&dir.join("shards")));

    let Some(pictures) = std::env::var("NCT_FROST").ok().filter(|folder| !folder.is_empty()) else {
        return eprintln!("skipped: NCT_FROST names no folder of the published pictures");
    };
    for threads in [1, 3] {
        let args = format!("--out pictures{threads} --threads {threads} --json {frost}");
        let out = corrupted(&args, &pictures);
        let told = String::from_utf8_lossy(&out.stdout);
        assert!(told.contains("\"frost_source\":\"pictures\""), "{}", stderr(&out));
    }
    let [one, three, textures] = ["pictures1", "pictures3", "textures"].map(|name| files(&dir.join(name)));
    assert!(one == three && one != textures);
}
