use super::*;
use tch::IndexOp;

/// f(x) = - sum (t - x)², of each image.
struct Quadratic(Tensor);

impl Objective for Quadratic {
    fn values(&self, images: &Tensor) -> Result<Tensor, AnalysisError> {
        Ok(-(images - &self.0).square().sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float))
    }
}

/// An operation or transformation of a test.
struct By<F>(F);

impl<F: Fn(&Tensor) -> Tensor> Operation for By<F> {
    fn apply(&self, x: &Tensor, _: u32) -> Tensor {
        (self.0)(x)
    }
}

impl<F: Fn(&Tensor) -> Tensor> Transform for By<F> {
    fn apply(&self, images: &Tensor, _: u32) -> Tensor {
        (self.0)(images)
    }
}

impl<F: Fn(&Tensor) -> Tensor> Penalty for By<F> {
    fn of(&self, images: &Tensor) -> Tensor {
        (self.0)(images)
    }
}

fn image(values: &[f32], shape: [i64; 4]) -> Tensor {
    Tensor::from_slice(values).view(shape)
}

fn settings(lr: f64, stop: Stop) -> Settings {
    Settings {
        initial: Start::Zero,
        transform: Vec::new(),
        regularizer: Vec::new(),
        precondition: Vec::new(),
        optimizer: OptimizerSettings::Sgd { lr, momentum: 0.0, weight_decay: 0.0 },
        projection: Vec::new(),
        stop,
        log_every: 10,
        inhibitory: false,
    }
}

fn run(ascent: &Ascent<'_>, start: &Tensor) -> (Search, State) {
    let mut search = Search::new(start);
    loop {
        let state = ascent.advance(&mut search).unwrap();
        if search.is_over() {
            return (search, state);
        }
    }
}

fn close(a: &Tensor, b: &Tensor, tolerance: f64) -> bool {
    a.size() == b.size() && (a - b).abs().max().double_value(&[]) <= tolerance
}

fn target() -> Tensor {
    image(&[-1.0, 1.0, 1.0, -1.0], [1, 1, 2, 2])
}

/// The reference's tests of its engine (spec/reconstruction 2.8).
#[test]
fn toy_problems_end_where_the_references_do_after_101_steps() {
    let objective = Quadratic(target());
    let settings = settings(0.1, Stop::NumIterations { n: 100 });
    let start = Tensor::zeros([1, 1, 2, 2], (Kind::Float, Device::Cpu));
    let plain = || settings.ascent(&objective, &[0], None);
    let (search, state) = run(&plain(), &start);
    assert!(close(&search.images, &target(), 1e-4));
    assert!(state.values.double_value(&[0]).abs() < 1e-6);
    assert_eq!((search.step, search.ended[0], state.step), (101, Some(100), 100));
    let times: Vec<u32> = search.log.iter().map(|row| row.step).collect();
    assert_eq!(times, (0..=100).step_by(10).collect::<Vec<u32>>());

    let negated = Ascent { transforms: vec![Box::new(By(|x: &Tensor| -x))], ..plain() };
    assert!(close(&run(&negated, &start).0.images, &-target(), 1e-4));

    let sum = |x: &Tensor| x.abs().sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float);
    let penalised = Ascent { penalties: vec![Box::new(By(sum))], ..plain() };
    let (search, state) = run(&penalised, &start);
    assert!(close(&search.images, &(target() / 2.0), 1e-4));
    assert!((state.values.double_value(&[0]) + 1.0).abs() < 1e-4);

    let masked = |g: &Tensor| {
        let g = g.copy();
        let _ = g.i((.., .., 0, 0)).fill_(0.0);
        g
    };
    let held = Ascent { precondition: vec![Box::new(By(masked))], ..plain() };
    let (search, state) = run(&held, &start);
    assert_eq!(search.images.double_value(&[0, 0, 0, 0]), 0.0);
    assert!((state.values.double_value(&[0]) + 1.0).abs() < 1e-4);

    let away = Ascent { inhibitory: true, ..plain() };
    let mut search = Search::new(&(target() * 0.5));
    let _ = away.advance(&mut search).unwrap();
    assert!(close(&search.images, &(target() * 0.4), 1e-6), "away from the target");
}

#[test]
fn a_log_of_every_tenth_of_5000_iterations_has_501_entries() {
    let objective = Quadratic(target());
    let settings = settings(0.01, Stop::NumIterations { n: 5000 });
    let (search, _) = run(&settings.ascent(&objective, &[0], None), &target());
    assert_eq!((search.log.len(), search.log[500].step, search.step), (501, 5000, 5001));
    let settings = Settings { stop: Stop::Steps { n: 7 }, ..settings };
    assert_eq!(run(&settings.ascent(&objective, &[0], None), &target()).0.step, 7);
}

/// f = identity with the mean of squares (spec/reconstruction 6.4).
#[test]
fn identity_converges_to_the_target_scaled_to_the_sphere_or_within_the_ball() {
    struct Identity(Tensor);
    impl Objective for Identity {
        fn values(&self, images: &Tensor) -> Result<Tensor, AnalysisError> {
            Ok(-(images - &self.0).square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float))
        }
    }
    tch::manual_seed(1);
    let t = Tensor::randn([1, 3, 8, 8], (Kind::Float, Device::Cpu));
    let n = t.numel() as f64;
    let norm = t.norm().double_value(&[]);
    let objective = Identity(t.shallow_clone());
    let settings = settings(n / 4.0, Stop::Steps { n: 60 });
    let start = Tensor::randn([1, 3, 8, 8], (Kind::Float, Device::Cpu));
    let free = settings.ascent(&objective, &[0], None);
    let mut search = Search::new(&start);
    for _ in 0..5 {
        let before = (&search.images - &t).norm().double_value(&[]);
        let _ = free.advance(&mut search).unwrap();
        let after = (&search.images - &t).norm().double_value(&[]);
        assert!((after / before - 0.5).abs() < 1e-4, "the error halves: {before} {after}");
    }
    for (c, ball, expected) in
        [(0.5 * norm, false, 0.5), (2.0 * norm, false, 2.0), (0.5 * norm, true, 0.5), (2.0 * norm, true, 1.0)]
    {
        let constraint: Box<dyn Operation> = Box::new(ChangeNorm::each(&[c], ball));
        let (search, _) = run(&settings.ascent(&objective, &[0], Some(constraint)), &start);
        assert!(close(&search.images, &(&t * expected), 1e-4), "{c} {ball}");
    }
}

/// A fixed random layer of 3 x 3 (spec/reconstruction 6.5).
#[test]
fn a_linear_layer_is_matched_better_with_more_norm_and_reaches_the_analytic_solution() {
    struct Linear {
        kernel: Tensor,
        seen: Tensor,
    }
    impl Linear {
        fn see(&self, x: &Tensor) -> Tensor {
            x.conv2d(&self.kernel, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1).flatten(1, -1)
        }
    }
    impl Objective for Linear {
        fn values(&self, x: &Tensor) -> Result<Tensor, AnalysisError> {
            Ok(-(self.see(x) - &self.seen).square().mean_dim([1i64].as_slice(), false, Kind::Float))
        }
    }
    tch::manual_seed(2);
    let options = (Kind::Float, Device::Cpu);
    let kernel = Tensor::randn([8, 1, 3, 3], options) * 0.3;
    let t = Tensor::randn([1, 1, 6, 6], options);
    let objective = Linear { seen: Tensor::zeros([1, 8 * 36], options), kernel };
    let objective = Linear { seen: objective.see(&t), ..objective };
    // The layer as a matrix, one column a pixel.
    let units = Tensor::eye(36, options).view([36, 1, 6, 6]);
    let matrix = objective.see(&units).tr().to_kind(Kind::Double);
    let hessian = matrix.tr().matmul(&matrix) * (2.0 / (8.0 * 36.0));
    let largest = hessian.linalg_eigvalsh("L").max().double_value(&[]);
    let settings = settings(1.0 / largest, Stop::Steps { n: 3000 });
    let start = Tensor::zeros([1, 1, 6, 6], options);
    let (search, _) = run(&settings.ascent(&objective, &[0], None), &start);
    let values: Vec<f64> = search.log.iter().skip(1).map(|row| row.values[0]).collect();
    assert!(values.windows(2).all(|v| v[1] >= v[0] - 1e-9), "never worse");
    // Least squares with the smallest norm, which a start at zero keeps to.
    let (seen, t64) = (objective.seen.to_kind(Kind::Double), t.to_kind(Kind::Double));
    let solution = matrix.linalg_pinv(1e-9, false).matmul(&seen.tr()).view([1, 1, 6, 6]);
    assert!(close(&search.images.to_kind(Kind::Double), &solution, 1e-3));
    let norm = t64.norm().double_value(&[]);
    let mut last = f64::NEG_INFINITY;
    for c in [0.25, 0.5, 0.75, 1.0] {
        let constraint: Box<dyn Operation> = Box::new(ChangeNorm::each(&[c * norm], true));
        let ascent = settings.ascent(&objective, &[0], Some(constraint));
        let (search, _) = run(&ascent, &start);
        let value = ascent.value(&search).unwrap()[0];
        assert!(value > last && search.images.norm().double_value(&[]) <= c * norm * 1.0001, "{c}: {value}");
        last = value;
    }
}

/// spec/reconstruction 6.2.
#[test]
fn a_blur_of_one_pixel_has_the_specs_numbers() {
    let blur =
        OperationSettings::GaussianBlur { sigma: [1.0; 2], decay: 0.0, truncate: 4.0, pad: Pad::Reflect };
    let impulse = |y: i64, x: i64| {
        let image = Tensor::zeros([1, 2, 8, 8], (Kind::Float, Device::Cpu));
        let _ = image.i((.., .., y, x)).fill_(1.0);
        blur.apply(&image, 0)
    };
    let at = |t: &Tensor, y: i64, x: i64| t.double_value(&[0, 1, y, x]);
    let corner = impulse(0, 0);
    assert!((at(&corner, 0, 0) - 0.159_155_89).abs() < 1e-7);
    assert!((at(&corner, 1, 1) - 0.058_550_18).abs() < 1e-7);
    assert!((at(&impulse(1, 1), 0, 0) - 0.234_200_72).abs() < 1e-7);
    let flat = Tensor::ones([1, 1, 9, 11], (Kind::Float, Device::Cpu));
    assert!(close(&blur.apply(&flat, 0), &flat, 1e-6));
    // The deviation changes with the step, down and across by themselves.
    let moving = OperationSettings::GaussianBlur {
        sigma: [1.0, 2.0],
        decay: -0.5,
        truncate: 4.0,
        pad: Pad::Replicate,
    };
    let later =
        OperationSettings::GaussianBlur { sigma: [0.5, 1.5], decay: 0.0, truncate: 4.0, pad: Pad::Replicate };
    let image = Tensor::randn([1, 1, 9, 11], (Kind::Float, Device::Cpu));
    assert!(close(&moving.apply(&image, 1), &later.apply(&image, 0), 1e-6));
    assert!(!close(&moving.apply(&image, 0), &later.apply(&image, 0), 1e-3));
}

/// spec/reconstruction 6.3, and the operations by their definitions; each row by itself.
#[test]
fn operations_have_the_specs_numbers_in_every_row() {
    let x = image(&[1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0], [2, 1, 2, 2]);
    let of = |operation: OperationSettings, x: &Tensor| operation.apply(x, 2);
    let rows = |t: &Tensor, row: i64| Vec::<f32>::try_from(t.select(0, row).flatten(0, -1)).unwrap();
    let near = |found: &[f32], expected: &[f32]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
    };
    let scaled = of(OperationSettings::ChangeStd { std: 1.0, zero_mean: true }, &x);
    near(&rows(&scaled, 0), &[0.774_597, 1.549_193, 2.323_79, 3.098_387]);
    near(&rows(&scaled, 1), &[0.774_597, 1.549_193, 2.323_79, 3.098_387]);
    let kept = of(OperationSettings::ChangeStd { std: 1.0, zero_mean: false }, &x);
    near(&rows(&kept, 0), &[1.338_105, 2.112_702, 2.887_298, 3.661_895]);
    let pair = image(&[3.0, 4.0, 0.3, 0.4, 0.0, 0.0], [3, 1, 1, 2]);
    let normed = of(OperationSettings::ChangeNorm { norm: 1.0 }, &pair);
    near(&rows(&normed, 0), &[0.6, 0.8]);
    near(&rows(&normed, 1), &[0.6, 0.8]);
    near(&rows(&normed, 2), &[0.0, 0.0]);
    let limited = of(OperationSettings::LimitNorm { norm: 1.0 }, &pair);
    near(&rows(&limited, 0), &[0.6, 0.8]);
    near(&rows(&limited, 1), &[0.3, 0.4]);
    let one = image(&[3.0, -4.0], [1, 1, 1, 2]);
    near(&rows(&of(OperationSettings::PNormConstraint { norm: 3.5, p: 1.0 }, &one), 0), &[1.5, -2.0]);
    near(&rows(&of(OperationSettings::ClipRange { low: -1.0, high: 2.0 }, &one), 0), &[2.0, -1.0]);
    near(&rows(&of(OperationSettings::MultiplyBy { constant: 2.0, decay: -0.5 }, &one), 0), &[3.0, -4.0]);
    near(&rows(&of(OperationSettings::DivideByMeanOfAbsolute, &x), 1), &[0.4, 0.8, 1.2, 1.6]);
    let cut = of(
        OperationSettings::CutChannel { channel: 1 },
        &Tensor::ones([1, 2, 1, 2], (Kind::Float, Device::Cpu)),
    );
    near(&rows(&cut, 0), &[1.0, 1.0, 0.0, 0.0]);
    // Smoothing keeps the mean, and takes away what changes with every pixel in both directions.
    let checks: Vec<f32> = (0..64).map(|i| if (i / 8 + i % 8) % 2 == 0 { 3.0 } else { 1.0 }).collect();
    let smooth = of(OperationSettings::FourierSmoothing { exponent: 1.0 }, &image(&checks, [1, 1, 8, 8]));
    near(&rows(&smooth, 0), &[2.0; 64]);
}

#[test]
fn transformations_are_of_each_images_own_seed_and_the_step() {
    let ramp: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let one = image(&ramp, [1, 1, 8, 8]);
    let two = Tensor::cat(&[&one, &one], 0);
    let jitter = TransformSettings::Jitter { max: [2, 3] };
    let of = |seeds: &[u64], x: &Tensor, step: u32| jitter.build(seeds, 0).apply(x, step);
    let both = of(&[5, 9], &two, 3);
    assert_eq!(both.size(), two.size());
    assert_eq!(both.narrow(0, 0, 1), of(&[5], &one, 3));
    assert_eq!(both.narrow(0, 1, 1), of(&[9], &one, 3));
    let moved = (0..20).map(|step| of(&[5], &one, step)).filter(|t| *t != one).count();
    assert!(moved > 10, "{moved}");
    // Mirrored at the border, everything else shifted.
    let inside = of(&[5], &one, 3);
    let shift = inside.double_value(&[0, 0, 3, 3]) - one.double_value(&[0, 0, 3, 3]);
    assert_eq!(inside.double_value(&[0, 0, 4, 4]) - one.double_value(&[0, 0, 4, 4]), shift);

    let crop = TransformSettings::RandomCrop { height: 5, width: 4 }.build(&[1], 0).apply(&one, 0);
    assert_eq!(crop.size(), [1, 1, 5, 4]);
    let crops = TransformSettings::BatchedCrops { height: 4, width: 4, step: 4, sigma: None };
    let crops = crops.build(&[1, 2], 0).apply(&two, 0);
    assert_eq!(crops.size(), [8, 1, 4, 4]);
    assert_eq!(crops.double_value(&[3, 0, 0, 0]), one.double_value(&[0, 0, 4, 4]));
    // Shifted, views stay as many, and each is of its image; the draws of an image are its own.
    let shift = |seeds: &[u64], views: &Tensor| {
        TransformSettings::Jitter { max: [1, 1] }.build(seeds, 1).apply(views, 3)
    };
    let shifted = shift(
        &[1, 2],
        &(crops.ones_like() * Tensor::arange(8, (Kind::Float, Device::Cpu)).view([8, 1, 1, 1])),
    );
    assert_eq!(shifted.size(), [8, 1, 4, 4]);
    assert!((0..8).all(|row| shifted.double_value(&[row, 0, 0, 0]) == row as f64));
    assert_eq!(shift(&[1, 2], &crops).narrow(0, 4, 4), shift(&[2], &crops.narrow(0, 4, 4)));
    let masked = TransformSettings::BatchedCrops { height: 5, width: 5, step: 3, sigma: Some([1.0, 2.0]) };
    let masked = masked.build(&[1], 0).apply(&Tensor::ones([1, 1, 8, 8], (Kind::Float, Device::Cpu)), 0);
    assert_eq!((masked.size()[0], masked.double_value(&[0, 0, 2, 2])), (4, 1.0));
    assert!((masked.double_value(&[0, 0, 1, 2]) - (-0.5f64).exp()).abs() < 1e-6);
    let range = TransformSettings::ChangeRange { low: -2.0, high: 4.0 }.build(&[1], 0);
    assert_eq!(
        range.apply(&Tensor::zeros([1, 1, 1, 1], (Kind::Float, Device::Cpu)), 0).double_value(&[0, 0, 0, 0]),
        1.0
    );
    let large = TransformSettings::Resize { scale: 1.5, method: Interpolation::Nearest }.build(&[1], 0);
    assert_eq!(large.apply(&one, 0).size(), [1, 1, 12, 12]);
    assert_eq!(TransformSettings::GrayscaleToRgb.build(&[1], 0).apply(&one, 0).size(), [1, 3, 8, 8]);
}

/// Penalties by their definitions, and their gradients against finite differences.
#[test]
fn penalties_are_what_they_say_and_so_are_their_gradients() {
    let x = image(&[0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 0.0, 0.0, 2.0], [1, 1, 3, 3]);
    let tv = |isotropic| PenaltySettings::TotalVariation { weight: 2.0, isotropic }.of(&x).double_value(&[0]);
    let (down, across) = (6.0 + 9.0 + 12.0 + 6.0 + 10.0 + 13.0, 1.0 + 2.0 + 4.0 + 5.0 + 0.0 + 2.0);
    assert!((tv(false) - 2.0 * (down + across)).abs() < 1e-4, "{}", tv(false));
    let roots = [(6.0, 1.0), (9.0, 2.0), (6.0, 4.0), (10.0, 5.0)].map(|(a, b): (f64, f64)| a.hypot(b));
    assert!((tv(true) - 2.0 * roots.iter().sum::<f64>()).abs() < 1e-4);
    let norm = PenaltySettings::LpNorm { weight: 1.0, p: 6.0 }.of(&x).double_value(&[0]);
    let expected = [1f64, 3.0, 6.0, 10.0, 15.0, 2.0].map(|v| v.powi(6)).iter().sum::<f64>().powf(1.0 / 6.0);
    assert!((norm - expected).abs() < 1e-4);
    let boxes =
        PenaltySettings::BoxContrast { weight: 2.0, filter: 3, limit: 5.0, p: 2.0, padding: 0, l1: 0.0 };
    let ones = Tensor::ones([1, 1, 4, 4], (Kind::Float, Device::Cpu));
    // Each box of nine has an energy of 9.
    assert!((boxes.of(&ones).double_value(&[0]) - 2.0 * 16.0).abs() < 1e-4);
    let flat = (&ones * 0.0).set_requires_grad(true);
    let norm = PenaltySettings::LpNorm { weight: 1.0, p: 6.0 }.of(&flat).sum(Kind::Float);
    let slope = Tensor::run_backward(&[norm], &[&flat], false, false).remove(0);
    assert_eq!(slope.abs().max().double_value(&[]), 0.0, "the norm of nothing has no slope");
    let range =
        PenaltySettings::PixelRange { weight: 0.1, upper: 2.0, lower: -1.5, p: 2.0, l2: 0.0, l1: 0.0 };
    let beyond = range.of(&image(&[3.0, -2.5, 0.0, 1.0], [1, 1, 2, 2]).constant_pad_nd([0, 1, 0, 1]));
    assert!((beyond.double_value(&[0]) - 0.1 * (1.0 + 1.0)).abs() < 1e-6, "both limits count");
    let alike = PenaltySettings::Similarity { weight: 1.0, metric: Similar::Cosine, combine: Combine::Max };
    let pair = Tensor::cat(&[&x, &(&x * 2.0)], 0);
    let found = alike.of(&pair);
    assert!((found.sum(Kind::Float).double_value(&[]) - 1.0).abs() < 1e-5 && found.size() == [2]);
    assert_eq!(alike.of(&x).double_value(&[0]), 0.0);

    tch::manual_seed(3);
    let x = Tensor::randn([1, 1, 9, 9], (Kind::Float, Device::Cpu)) * 2.0;
    for penalty in [
        PenaltySettings::TotalVariation { weight: 1.0, isotropic: false },
        PenaltySettings::TotalVariation { weight: 1.0, isotropic: true },
        PenaltySettings::LpNorm { weight: 1.0, p: 3.0 },
        PenaltySettings::BoxContrast { weight: 1.0, filter: 3, limit: 5.0, p: 2.0, padding: 0, l1: 0.1 },
        PenaltySettings::PixelRange { weight: 1.0, upper: 1.0, lower: -1.0, p: 2.0, l2: 0.5, l1: 0.1 },
    ] {
        let at = |x: &Tensor| penalty.of(x).double_value(&[0]);
        let leaf = x.detach().set_requires_grad(true);
        let gradient =
            Tensor::run_backward(&[penalty.of(&leaf).sum(Kind::Float)], &[&leaf], false, false).remove(0);
        tch::no_grad(|| {
            let way = Tensor::randn_like(&x);
            let way = &way / way.norm();
            let h = 1e-2;
            let numeric = (at(&(&x + &way * h)) - at(&(&x - &way * h))) / (2.0 * h);
            let found = (gradient * way).sum(Kind::Float).double_value(&[]);
            assert!((numeric - found).abs() < 2e-2 * found.abs().max(1.0), "{penalty:?}: {numeric} {found}");
        });
    }
}

#[test]
fn momentum_and_adam_are_pytorchs() {
    // torch 2.11: x = 1, -2; loss = sum x^2 / 2 + 3 x; three steps.
    struct Bowl;
    impl Objective for Bowl {
        fn values(&self, x: &Tensor) -> Result<Tensor, AnalysisError> {
            Ok(-(x.square() / 2.0 + x * 3.0).sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float))
        }
    }
    let start = image(&[1.0, -2.0], [1, 1, 1, 2]);
    for (optimizer, expected) in [
        (OptimizerSettings::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.01 }, SGD),
        (OptimizerSettings::Adam { lr: 0.1, betas: [0.9, 0.999], eps: 1e-8 }, ADAM),
    ] {
        let settings = Settings { optimizer, ..settings(0.0, Stop::Steps { n: 3 }) };
        let (search, _) = run(&settings.ascent(&Bowl, &[0], None), &start);
        let found = Vec::<f32>::try_from(search.images.flatten(0, -1)).unwrap();
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{optimizer:?}: {found:?}");
    }
}

/// Of `torch.optim`.
const SGD: [f32; 2] = [-1.059_295_9, -2.503_269_2];
const ADAM: [f32; 2] = [0.700_273_9, -2.298_413_5];

#[test]
fn an_image_that_is_done_stays_while_others_go_on() {
    let targets = Tensor::cat(&[&target(), &(target() * 8.0)], 0);
    let objective = Quadratic(targets);
    let settings = settings(0.1, Stop::Threshold { value: -0.5, n: 50 });
    let start = Tensor::zeros([2, 1, 2, 2], (Kind::Float, Device::Cpu));
    let (both, _) = run(&settings.ascent(&objective, &[0, 0], None), &start);
    let [Some(first), Some(second)] = both.ended[..] else { panic!("{:?}", both.ended) };
    assert!(first < second && second < 50, "{first} {second}");
    let alone = Quadratic(target());
    let (alone, _) = run(&settings.ascent(&alone, &[0], None), &start.narrow(0, 0, 1));
    assert_eq!(alone.ended, [Some(first)]);
    assert!(close(&alone.images, &both.images.narrow(0, 0, 1), 1e-6));
}

#[test]
fn a_search_that_was_kept_goes_on_as_if_it_had_not_stopped() {
    let objective = Quadratic(Tensor::cat(&[&target(), &(target() * 3.0)], 0));
    let settings = Settings {
        optimizer: OptimizerSettings::Adam { lr: 0.05, betas: [0.9, 0.999], eps: 1e-8 },
        transform: vec![TransformSettings::Jitter { max: [1, 1] }],
        ..settings(0.0, Stop::Threshold { value: -0.3, n: 40 })
    };
    let start = Tensor::zeros([2, 1, 2, 2], (Kind::Float, Device::Cpu));
    let ascent = || settings.ascent(&objective, &[4, 5], None);
    let (whole, _) = run(&ascent(), &start);
    let mut first = Search::new(&start);
    (0..13).for_each(|_| drop(ascent().advance(&mut first).unwrap()));
    let mut second = Search::resume(&first.tensors(), Device::Cpu).unwrap();
    while !second.is_over() {
        let _ = ascent().advance(&mut second).unwrap();
    }
    assert_eq!((second.step, &second.ended, &second.log), (whole.step, &whole.ended, &whole.log));
    assert_eq!(second.images, whole.images);
    assert!(Search::resume(&[("images".to_owned(), start)], Device::Cpu).is_none());
}

#[test]
fn steps_that_are_too_large_are_told_with_their_step() {
    let objective = Quadratic(target());
    let settings = settings(1e30, Stop::Steps { n: 100 });
    let mut search = Search::new(&Tensor::zeros([1, 1, 2, 2], (Kind::Float, Device::Cpu)));
    let ascent = Ascent { log_every: 1, ..settings.ascent(&objective, &[0], None) };
    let e = (0..100).find_map(|_| ascent.advance(&mut search).err()).unwrap();
    assert!(
        e.is_input() && e.to_string().contains("step 1:") && e.to_string().contains("learning rate"),
        "{e}"
    );
}

#[test]
fn parts_that_do_not_fit_images_are_told_before_the_search() {
    let fits = |change: fn(&mut Settings)| {
        let mut settings = settings(0.1, Stop::Steps { n: 10 });
        change(&mut settings);
        settings.check([1, 16, 20])
    };
    let blur = |sigma: f64, decay: f64| OperationSettings::GaussianBlur {
        sigma: [sigma; 2],
        decay,
        truncate: 4.0,
        pad: Pad::Reflect,
    };
    fits(|_| ()).unwrap();
    assert!(
        blur(3.0, 0.0).check([1, 16, 20], 10.0).is_ok() && blur(4.0, 0.0).check([1, 16, 20], 10.0).is_err()
    );
    assert!(blur(1.0, 0.5).check([1, 16, 20], 10.0).is_err(), "it grows");
    // A crop after an enlargement may be larger than the image.
    fits(|s| {
        let crop = TransformSettings::RandomCrop { height: 30, width: 30 };
        s.transform = vec![TransformSettings::Resize { scale: 2.0, method: Interpolation::Nearest }, crop];
    })
    .unwrap();
    let bad: [fn(&mut Settings); 10] = [
        |s| s.initial = Start::NormalNullChannel { channel: 1, value: 0.0 },
        |s| s.transform = vec![TransformSettings::RandomCrop { height: 17, width: 3 }],
        |s| s.transform = vec![TransformSettings::Jitter { max: [16, 0] }],
        |s| s.transform = vec![TransformSettings::GrayscaleToRgb; 2],
        |s| s.regularizer = vec![PenaltySettings::LpNorm { weight: 1.0, p: 0.0 }],
        |s| s.precondition = vec![OperationSettings::CutChannel { channel: 1 }],
        |s| s.projection = vec![OperationSettings::ChangeNorm { norm: -1.0 }],
        |s| s.optimizer = OptimizerSettings::Sgd { lr: f64::NAN, momentum: 0.0, weight_decay: 0.0 },
        |s| s.stop = Stop::Steps { n: 0 },
        |s| s.log_every = 0,
    ];
    for (i, change) in bad.into_iter().enumerate() {
        let e = fits(change).unwrap_err();
        assert!(e.is_input() && e.to_string().starts_with("search: "), "{i}: {e}");
    }
}

#[test]
fn the_example_in_the_documents_is_a_search() {
    let text = include_str!("../../../docs/analysis.md")
        .split("```toml")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let settings: Settings = toml::from_str(text).unwrap();
    settings.check([1, 64, 64]).unwrap();
    assert_eq!((settings.precondition.len(), settings.stop.most()), (3, Some(1000)));
    let again: Settings = serde_json::from_value(serde_json::to_value(&settings).unwrap()).unwrap();
    assert_eq!(settings, again);
}

/// spec/reconstruction 1.4, 2.3: the objective is of the transformed image. What is drawn or cut is of the search only.
#[test]
fn what_is_found_is_what_the_objective_saw_without_shifts() {
    let objective = Quadratic(target());
    let mut settings = settings(0.1, Stop::Steps { n: 40 });
    settings.transform = vec![
        TransformSettings::ChangeRange { low: -2.0, high: 2.0 },
        TransformSettings::Jitter { max: [1, 1] },
    ];
    let ascent = settings.ascent(&objective, &[7], None);
    let (search, _) = run(&ascent, &image(&[0.5, 1.0, -1.0, 3.0], [1, 1, 2, 2]));
    let shown = search.images.sigmoid() * 4.0 - 2.0;
    assert!(close(&ascent.found(&search), &shown, 1e-6));
    let expected = objective.values(&shown).unwrap().double_value(&[0]);
    assert!((ascent.value(&search).unwrap()[0] - expected).abs() < 1e-6);
    settings.transform = vec![TransformSettings::GrayscaleToRgb];
    let ascent = settings.ascent(&objective, &[7], None);
    assert_eq!(ascent.found(&search).size(), [1, 3, 2, 2]);
}
