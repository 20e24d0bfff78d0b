//! Time of the corruptions of one 64 x 64 colour image, and of all 75 cells of each profile.
#![allow(missing_docs, clippy::unwrap_used, reason = "benches")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nct::corruption::{Corruption, Extent, ImageKey, Profile, Scratch, Severity};

const EXTENT: Extent = Extent { channels: 3, height: 64, width: 64 };

fn picture() -> Vec<u8> {
    let value = |i: usize| {
        let (c, y, x) = (i / 4096, (i / 64 % 64) as f64, (i % 64) as f64);
        128.0 + 60.0 * (x / 5.0 + c as f64).sin() + 40.0 * (y / 7.0).cos()
    };
    (0..EXTENT.len()).map(|i| value(i) as u8).collect()
}

fn corruptions(c: &mut Criterion) {
    let (before, mut image, mut scratch) = (picture(), picture(), Scratch::new());
    let mut number = 0;
    let mut corrupt = |corruption: Corruption, profile: Profile, severity: Severity| {
        number += 1;
        image.copy_from_slice(&before);
        let key = ImageKey { seed: 1, image: number };
        corruption.apply(profile, severity, key, &mut image, EXTENT, &mut scratch);
        assert_ne!(image, before, "{corruption} {profile} {severity}");
    };
    let mut group = c.benchmark_group("corruption");
    group.sample_size(20);
    for profile in Profile::ALL {
        group.throughput(Throughput::Elements(1));
        for corruption in Corruption::ALL {
            let severity = Severity::new(3).unwrap();
            let name = format!("{corruption}, profile {profile}, severity 3");
            group.bench_function(name, |b| b.iter(|| corrupt(corruption, profile, severity)));
        }
        group.throughput(Throughput::Elements(75));
        group.bench_function(format!("75 cells, profile {profile}"), |b| {
            b.iter(|| {
                for corruption in Corruption::PAPER {
                    for severity in Severity::ALL {
                        corrupt(corruption, profile, severity);
                    }
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, corruptions);
criterion_main!(benches);
