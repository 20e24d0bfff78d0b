//! Laws of the schedule, and the sequences of the reference's cyclers.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn neural(records: u64) -> StreamSpec {
    StreamSpec::new(Task::V1, records, 1)
}

fn images(records: u64) -> StreamSpec {
    StreamSpec { task: Task::Classification, ..neural(records) }
}

fn ratio(text: &str) -> Mix {
    Mix::Mtl { ratio: RatioByEpoch::new([(1, text.parse().unwrap())]).unwrap(), images_per_step: 1 }
}

/// The sequence of one epoch as `a1 b2 i1*`: stream, batch number in its pass, and `*` after an update.
fn sequence(schedule: &Schedule, names: &[&str], epoch: u32) -> String {
    let mut words = Vec::new();
    let first = schedule.first_step(epoch).0;
    for k in first..first + schedule.steps_per_epoch() {
        let plan = schedule.step(StepIndex(k));
        assert_eq!((plan.step, plan.epoch), (StepIndex(k), epoch));
        for batch in &plan.batches {
            words.push(format!("{}{}", names[batch.stream.0 as usize], batch.first + 1));
        }
        words.last_mut().unwrap().push('*');
    }
    words.join(" ")
}

#[test]
fn mtl_equals_the_reference_cycler() {
    for (text, expected) in [
        ("1", "a1 i1* b1 i2* a2 i3* b2 i4*"),
        ("2", "a1 b1 i1* a2 b2 i2* a1 b3 i3* a2 b1 i4*"),
        ("0", "i1* i2* i3* i4*"),
        ("1/2", "i1* a1 i2* i3* b1 i4*"),
    ] {
        let streams = vec![neural(2), neural(3), images(4)];
        let schedule = Schedule::new(streams, ratio(text), 1).unwrap();
        for epoch in [1, 2] {
            assert_eq!(sequence(&schedule, &["a", "b", "i"], epoch), expected, "ratio {text}");
        }
    }
}

#[test]
fn the_image_set_may_stand_anywhere() {
    let schedule = Schedule::new(vec![images(4), neural(2), neural(3)], ratio("1"), 1).unwrap();
    assert_eq!(sequence(&schedule, &["i", "a", "b"], 1), "a1 i1* b1 i2* a2 i3* b2 i4*");
}

#[test]
fn every_neural_set_gives_its_batches() {
    let v4 = |records| StreamSpec { task: Task::V4, ..neural(records) };
    for (text, expected) in
        [("2", "a1 b1 v1 v2 i1* a2 b2 v1 v2 i2*"), ("1", "a1 v1 i1* b1 v2 i2*"), ("1/2", "i1* a1 v1 i2*")]
    {
        let streams = vec![neural(2), neural(3), v4(2), images(2)];
        let schedule = Schedule::new(streams, ratio(text), 1).unwrap();
        assert_eq!(sequence(&schedule, &["a", "b", "v", "i"], 2), expected, "ratio {text}");
    }
}

#[test]
fn gradients_of_several_image_batches_can_add_up() {
    let Mix::Mtl { ratio, .. } = ratio("1") else { panic!() };
    let schedule =
        Schedule::new(vec![neural(2), neural(3), images(5)], Mix::Mtl { ratio, images_per_step: 2 }, 1)
            .unwrap();
    assert_eq!(schedule.steps_per_epoch(), 3);
    assert_eq!(sequence(&schedule, &["a", "b", "i"], 2), "a1 i1 b1 i2* a2 i3 b2 i4* a1 i5*");
}

#[test]
fn every_nth_comes_for_all_n() {
    // 1 / (1 / 49) is not 49 in floating point.
    for n in 2..60u64 {
        let schedule = Schedule::new(vec![neural(9), images(120)], ratio(&format!("1/{n}")), 1).unwrap();
        let neural = (0..120).filter(|k| schedule.step(StepIndex(*k)).batches.len() == 2).count() as u64;
        assert_eq!(neural, 120 / n);
    }
}

#[test]
fn long_and_short_equal_the_reference_cyclers() {
    let streams = || vec![neural(2), neural(3)];
    let long = Schedule::new(streams(), Mix::Long { batches_per_step: 0 }, 1).unwrap();
    assert_eq!(sequence(&long, &["a", "b"], 1), "a1 b1* a2 b2* a1 b3*");
    let short = Schedule::new(streams(), Mix::Short { batches_per_step: 0 }, 1).unwrap();
    assert_eq!(sequence(&short, &["a", "b"], 3), "a1 b1* a2 b2*");
}

#[test]
fn batches_left_over_at_the_end_of_an_epoch_still_make_an_update() {
    let mix = Mix::Long { batches_per_step: 4 };
    let schedule = Schedule::new(vec![neural(2), neural(3)], mix, 1).unwrap();
    assert_eq!(sequence(&schedule, &["a", "b"], 2), "a1 b1 a2 b2* a1 b3*");
}

#[test]
fn in_order_reads_everything_once() {
    let streams = vec![StreamSpec { batch_size: 2, ..neural(3) }, neural(2)];
    let schedule = Schedule::new(streams, Mix::InOrder, 1).unwrap();
    let mut seen = Vec::new();
    for k in 0..schedule.steps_per_epoch() {
        for batch in schedule.step(StepIndex(k)).batches {
            seen.extend(schedule.records(&batch).map(|r| (batch.stream.0, r.0)));
        }
    }
    assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]);
}

#[test]
fn what_cannot_be_scheduled_is_refused() {
    let weighted = Mix::Weighted { batches_per_step: 1, steps_per_epoch: 0 };
    let refused = |streams, mix| Schedule::new(streams, mix, 1).unwrap_err().to_string();
    assert!(refused(vec![], Mix::InOrder).contains("nothing"));
    assert!(refused(vec![neural(0)], Mix::InOrder).contains("no records"));
    assert!(refused(vec![neural(1)], ratio("1")).contains("exactly one image set"));
    assert!(refused(vec![images(1)], ratio("1")).contains("neural data"));
    assert!(refused(vec![StreamSpec { weight: 0.0, ..neural(1) }], weighted).contains("weight"));
}

proptest! {
    #[test]
    fn an_epoch_of_mtl_is_one_pass_over_the_images(n in 1u64..200, batch_size in 1u32..40, seed in any::<u64>()) {
        let streams = vec![StreamSpec { batch_size, ..neural(7) }, StreamSpec { batch_size, ..images(n) }];
        let schedule = Schedule::new(streams, ratio("1"), seed).unwrap();
        for epoch in 1..3 {
            let mut seen: Vec<u64> = Vec::new();
            let first = schedule.first_step(epoch).0;
            for k in first..first + schedule.steps_per_epoch() {
                let plan = schedule.step(StepIndex(k));
                seen.extend(schedule.records(plan.batches.last().unwrap()).map(|r| r.0));
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn weighted_shares_hold_over_the_whole_run(w in proptest::collection::vec(1u32..9, 2..5), seed in any::<u64>()) {
        let streams: Vec<StreamSpec> =
            w.iter().map(|&w| StreamSpec { weight: f64::from(w), ..neural(5) }).collect();
        let mix = Mix::Weighted { batches_per_step: 2, steps_per_epoch: 7 };
        let schedule = Schedule::new(streams, mix, seed).unwrap();
        let total: u64 = w.iter().map(|&w| u64::from(w)).sum();
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for k in 0..40 {
            for batch in schedule.step(StepIndex(k)).batches {
                *counts.entry(batch.stream.0).or_default() += 1;
            }
            for (i, &w) in w.iter().enumerate() {
                let have = counts.get(&(i as u32)).copied().unwrap_or(0);
                prop_assert!((have * total).abs_diff(2 * (k + 1) * u64::from(w)) < total);
            }
        }
    }
}

#[test]
fn the_order_depends_on_seed_epoch_and_stream_and_on_nothing_else() {
    let order = |seed: u64, epoch: u32, stream: u32| -> Vec<u64> {
        let streams = vec![neural(50), neural(50)];
        let schedule = Schedule::new(streams, Mix::Long { batches_per_step: 0 }, seed).unwrap();
        let batch = BatchPlan { stream: StreamId(stream), epoch, pass: 0, first: 0, len: 50 };
        schedule.records(&batch).map(|r| r.0).collect()
    };
    let one = order(1, 1, 0);
    assert_eq!(one, order(1, 1, 0));
    for other in [order(2, 1, 0), order(1, 2, 0), order(1, 1, 1)] {
        assert_ne!(one, other);
    }
}

proptest! {
    #[test]
    fn the_shares_of_all_ranks_are_the_batch(
        n in 1u64..300, batch_size in 1u32..70, world in 1u32..9, k in 0u64..40, seed in any::<u64>(),
    ) {
        let streams = vec![StreamSpec { batch_size, ..neural(n) }, StreamSpec { batch_size, ..images(n) }];
        let schedule = Schedule::new(streams, ratio("1"), seed).unwrap();
        for batch in schedule.step(StepIndex(k)).batches {
            let shares: Vec<BatchPlan> = (0..world).map(|rank| batch.share(rank, world)).collect();
            let (least, most) = (shares.iter().map(|s| s.len).min(), shares.iter().map(|s| s.len).max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1);
            let together: Vec<RecordId> = shares.iter().flat_map(|share| schedule.records(share)).collect();
            prop_assert_eq!(together, schedule.records(&batch).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_last_batch_is_kept_dropped_or_filled(n in 1u64..200, size in 1u32..40, seed in any::<u64>()) {
        let pass = |last_batch: LastBatch| -> Option<(Vec<u32>, Vec<u64>)> {
            let stream = StreamSpec { batch_size: size, last_batch, ..images(n) };
            let schedule = Schedule::new(vec![stream], Mix::Long { batches_per_step: 0 }, seed).ok()?;
            let steps = (0..schedule.steps_per_epoch()).map(|k| schedule.step(StepIndex(k)).batches[0]);
            let (mut sizes, mut records) = (Vec::new(), Vec::new());
            for batch in steps {
                sizes.push(batch.len);
                records.extend(schedule.records(&batch).map(|r| r.0));
            }
            Some((sizes, records))
        };
        let (sizes, kept) = pass(LastBatch::Keep).unwrap();
        prop_assert_eq!(sizes.iter().map(|&s| u64::from(s)).sum::<u64>(), n);
        let (sizes, filled) = pass(LastBatch::Fill).unwrap();
        prop_assert!(sizes.iter().all(|&s| s == size));
        let wrapped = (0..filled.len()).map(|i| kept[i % kept.len()]);
        prop_assert_eq!(&filled, &wrapped.collect::<Vec<_>>());
        match pass(LastBatch::Drop) {
            Some((sizes, records)) => {
                prop_assert!(sizes.iter().all(|&s| s == size));
                prop_assert_eq!(&records[..], &kept[..records.len()]);
                prop_assert!(n - (records.len() as u64) < u64::from(size));
            }
            None => prop_assert!(n < u64::from(size)),
        }
    }

    #[test]
    fn any_step_of_a_run_is_known_without_the_others(
        k in 0u64..1 << 40, seed in any::<u64>(), window in proptest::option::of((1u32..50, 1u32..50)),
    ) {
        let window = window.map(|(block, blocks)| Window { block, blocks });
        let set = StreamSpec { batch_size: 128, window, ..images(1 << 40) };
        let schedule = Schedule::new(vec![neural(1 << 40), set], ratio("2"), seed).unwrap();
        let mut plan = StepPlan::default();
        schedule.step_into(StepIndex(k), &mut plan);
        prop_assert_eq!(&plan, &schedule.step(StepIndex(k)));
        let records: Vec<RecordId> = schedule.records(plan.batches.last().unwrap()).collect();
        prop_assert!(records.len() == 128 && records.iter().all(|r| r.0 < 1 << 40));
    }

    #[test]
    fn sizes_and_decimal_fractions_are_met_exactly(
        w in proptest::collection::vec(1u32..100_000, 2..6), unit in prop::sample::select(vec![1.0, 0.01, 1e-4]),
    ) {
        let interleave = Interleave::new(&w.iter().map(|&w| f64::from(w) * unit).collect::<Vec<_>>());
        let total: u64 = w.iter().map(|&w| u64::from(w)).sum();
        let mut counts = vec![0u64; w.len()];
        for t in 0..total {
            let (stream, before) = interleave.at(t);
            prop_assert_eq!(before, counts[stream]);
            counts[stream] += 1;
        }
        prop_assert_eq!(counts, w.iter().map(|&w| u64::from(w)).collect::<Vec<_>>());
    }
}
