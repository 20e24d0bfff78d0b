use super::*;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use tch::{Device, Kind};

/// A free port that the system gives to nobody who asks for any.
fn port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id().wrapping_mul(31).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 15_000 + (n % 17_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// `world` threads, each a process to the others.
fn together<T: Send>(world: u32, work: impl Fn(Arc<Group>) -> T + Sync) -> Vec<T> {
    let port = port();
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..world)
            .map(|rank| {
                let work = &work;
                scope.spawn(move || {
                    let at = Meeting { host: "127.0.0.1".into(), port, interface: None, rank, world };
                    let group = Arc::new(Group::join(&at).unwrap());
                    let result = work(Arc::clone(&group));
                    group.meet().unwrap();
                    result
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Numbers that differ from place to place.
fn numbers(shape: &[i64], phase: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    ((Tensor::arange(n, (Kind::Double, Device::Cpu)) * 0.7 + phase).sin() * 2.0 + 0.3).view(shape)
}

fn near(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && (a - b).abs().max().double_value(&[]) < 1e-12
}

#[test]
fn bytes_and_flags_go_to_all() {
    let found = together(3, |group| {
        let rank = group.rank() as usize;
        let shared = group.share(&[7, 8, 9][..3 - rank]).unwrap();
        let nothing = group.share(&[]).unwrap();
        let all = group.gather_bytes(&vec![rank as u8; rank]).unwrap();
        let flags = (group.any(rank == 2).unwrap(), group.any(false).unwrap());
        let same = group.agree("seeds", "1").is_ok();
        let other = group.agree("seeds", &rank.to_string()).unwrap_err().to_string();
        (shared, nothing, all, flags, same, other)
    });
    for (shared, nothing, all, flags, same, other) in found {
        assert_eq!((shared, nothing), (vec![7, 8, 9], vec![]));
        assert_eq!(all, [vec![], vec![1], vec![2, 2]]);
        assert_eq!((flags, same), ((true, false), true));
        assert!(other.contains("0 and 1") && other.contains("seeds"), "{other}");
    }
}

/// Shares of a batch, one of them empty, are normalised as the whole batch is, forwards and backwards.
#[test]
fn shares_are_normalised_as_the_whole() {
    let whole = || numbers(&[5, 3, 4, 2], 0.0).set_requires_grad(true);
    let state = || {
        let [weight, bias] = [1.0, 2.0].map(|phase| numbers(&[3], phase).set_requires_grad(true));
        (
            weight,
            bias,
            Tensor::zeros([3], (Kind::Double, Device::Cpu)),
            Tensor::ones([3], (Kind::Double, Device::Cpu)),
        )
    };
    let slope = numbers(&[5, 3, 4, 2], 4.0);
    let x = whole();
    let (weight, bias, mean, variance) = state();
    let y = x.batch_norm(Some(&weight), Some(&bias), Some(&mean), Some(&variance), true, 0.1, 1e-5, false);
    (&y * &slope).sum(Kind::Double).backward();
    // Tensors stay in their threads; numbers travel.
    let flat = |t: &Tensor| Vec::<f64>::try_from(t.detach().flatten(0, -1)).unwrap();
    let found = together(3, |group| {
        let (first, len) = [(0, 2), (2, 0), (2, 3)][group.rank() as usize];
        let x = whole();
        let slope = numbers(&[5, 3, 4, 2], 4.0).narrow(0, first, len);
        let (weight, bias, mean, variance) = state();
        let y =
            group.batch_norm(&x.narrow(0, first, len), &weight, &bias, &mean, &variance, 0.1, 1e-5).unwrap();
        (&y * slope).sum(Kind::Double).backward();
        [&y, &x.grad(), &weight.grad(), &bias.grad(), &mean, &variance].map(flat)
    });
    let joined: Vec<f64> = found.iter().flat_map(|rank| rank[0].clone()).collect();
    let total = |part: usize| {
        (1..3).fold(Tensor::from_slice(&found[0][part]), |sum, rank| {
            sum + Tensor::from_slice(&found[rank][part])
        })
    };
    assert!(near(&Tensor::from_slice(&joined), &y.detach().flatten(0, -1)));
    for (part, expected) in [(1, x.grad()), (2, weight.grad()), (3, bias.grad())] {
        assert!(near(&total(part), &expected.flatten(0, -1)), "part {part}");
    }
    for rank in &found {
        assert!(near(&Tensor::from_slice(&rank[4]), &mean) && near(&Tensor::from_slice(&rank[5]), &variance));
    }
}

/// Two batches of which only the first uses `b`, and none uses `c`: sums over both, averages over processes, and no
/// gradient for what is unused.
#[test]
fn an_update_of_two_batches_is_exchanged_once() {
    let found = together(2, |group| {
        let rank = f64::from(group.rank());
        let param = || Tensor::ones([2], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let (a, b, c) = (param(), param(), param());
        let params = [a.shallow_clone(), b.shallow_clone(), c.shallow_clone()];
        let mut reducer = Reducer::new(group, &params).unwrap();
        let mut sums = Vec::new();
        for _ in 0..2 {
            for t in [&a, &b] {
                let mut grad = t.grad();
                if grad.defined() {
                    let _ = grad.zero_();
                }
            }
            let first = (&a * &b * (rank + 1.0)).sum(Kind::Double);
            first.backward();
            let last = (&a * 10.0 * (rank + 1.0)).sum(Kind::Double);
            reducer.prepare(&last).unwrap();
            last.backward();
            sums.push((a.grad().double_value(&[0]), b.grad().double_value(&[1]), c.grad().defined()));
        }
        sums
    });
    assert_eq!(found, [vec![(16.5, 1.5, false); 2], vec![(16.5, 1.5, false); 2]]);
}

/// Of tensors with any order of their values in memory; gaps would be lost.
#[test]
fn averages_are_over_all_processes() {
    let found = together(3, |group| {
        let rank = f64::from(group.rank());
        let [flat, kernel] = [numbers(&[5], rank), numbers(&[2, 3, 4], rank).permute([2, 0, 1])];
        group.average(&[flat.shallow_clone(), kernel.shallow_clone()]).unwrap();
        group.average(&[]).unwrap();
        let gaps = group.average(&[kernel.slice(0, 0, 4, 2)]).unwrap_err().to_string();
        assert!(gaps.contains("gaps"), "{gaps}");
        [flat, kernel].map(|t| Vec::<f64>::try_from(t.flatten(0, -1)).unwrap())
    });
    let mean = |of: &dyn Fn(f64) -> Tensor| (of(0.0) + of(1.0) + of(2.0)) / 3.0;
    let expected = [mean(&|r| numbers(&[5], r)), mean(&|r| numbers(&[2, 3, 4], r).permute([2, 0, 1]))];
    for rank in found {
        for (a, b) in rank.iter().zip(&expected) {
            assert!(near(&Tensor::from_slice(a), &b.flatten(0, -1)), "{a:?} {b}");
        }
    }
}

/// What `work` says to the process `left` of two, when the other has met it and is gone.
fn left_alone(left: u32, work: impl FnOnce(&Group) -> Result<(), GroupError>) -> GroupError {
    let port = port();
    let join = |rank| {
        let at = Meeting { host: "127.0.0.1".into(), port, interface: None, rank, world: 2 };
        Group::join(&at).unwrap()
    };
    thread::scope(|scope| {
        let gone = scope.spawn(|| join(1 - left).meet().unwrap());
        let group = join(left);
        group.meet().unwrap();
        gone.join().unwrap();
        work(&group).unwrap_err()
    })
}

#[test]
fn a_process_that_is_gone_is_an_error_for_the_others() {
    let error = left_alone(0, Group::meet);
    assert!(matches!(error, GroupError::Lost(_)) && error.to_string().contains("--resume"), "{error}");
    let before_gpus_meet = left_alone(1, |group| group.connect(Device::Cuda(0)));
    assert!(matches!(before_gpus_meet, GroupError::Lost(_)), "{before_gpus_meet}");
}

/// Reading gives what `grid_sampler` gives, and its gradients: inside, on pixels, on the border, for maps of one row,
/// and in parts.
#[test]
fn maps_are_read_as_grid_sampler_reads_them() {
    for (height, width) in [(5, 3), (3, 9), (1, 5), (5, 1)] {
        let at = numbers(&[2, 7, 2], 0.4) * 0.4;
        // Pixels lie at multiples of a half, or of a quarter.
        let exact = Tensor::from_slice(&[-1.0, -1.0, 1.0, 1.0, 0.0, 0.0, 0.5, -0.5f64]).view([4, 2]);
        at.slice(1, 0, 4, 1).copy_(&exact.expand([2, 4, 2], false));
        assert!(at.abs().max().double_value(&[]) <= 1.0);
        let upstream = numbers(&[2, 7, 4], 0.9);
        let gradients = |work: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
            let map = numbers(&[2, 4, height, width], 0.1).set_requires_grad(true);
            let at = at.copy().set_requires_grad(true);
            let read = work(&map, &at);
            (&read * &upstream).sum(Kind::Double).backward();
            [read.detach(), map.grad(), at.grad()]
        };
        let expected = gradients(&|map, at| {
            map.grid_sampler(&at.unsqueeze(2), 0, 0, true).squeeze_dim(3).transpose(1, 2)
        });
        for room in [1, 2 * 3 * height * width * 3, 1 << 20] {
            let found = gradients(&|map, at| read_with(map, at, room, true).unwrap());
            for (what, (a, b)) in ["values", "map", "positions"].iter().zip(found.iter().zip(&expected)) {
                assert!(near(a, b), "{what} of {height} x {width}, room {room}:\n{a}\n{b}");
            }
        }
    }
}

/// What asks for no gradient gets none, and a second derivative, which there is not, is refused.
#[test]
fn only_asked_for_gradients_of_readings_are_made() {
    let (map, at) = (numbers(&[1, 2, 4, 4], 0.0), numbers(&[1, 3, 2], 0.0) * 0.3);
    let whole = read(&map, &at, true).unwrap();
    assert!(!whole.requires_grad());
    let moving = at.copy().set_requires_grad(true);
    assert!(near(&read(&map, &moving, true).unwrap().detach(), &whole));
    let loss = read(&map, &moving, true).unwrap().square().sum(Kind::Double);
    let twice = Tensor::f_run_backward(&[loss], &[&moving], true, true).unwrap_err().to_string();
    assert!(twice.contains("no second derivative"), "{twice}");
    let map = map.set_requires_grad(true);
    let loss = read(&map, &at, true).unwrap().sum(Kind::Double);
    let gradient = Tensor::run_backward(&[loss], &[&map], false, false).remove(0);
    assert_eq!((gradient.size(), gradient.stride()), (map.size(), vec![32, 1, 8, 2]));
}

/// Gradients of a weight in bfloat16, added to those in 32 bits by its own backward pass, have the bits of autograd's sums, in the
/// same memory.
#[test]
fn gradients_add_up_where_they_are_made() {
    let made = |narrow: &dyn Fn(&Tensor) -> Tensor| {
        let weight = numbers(&[4, 3, 5], 0.1).to_kind(Kind::Float).set_requires_grad(true);
        let mut memory = Vec::new();
        for phase in [1.0, 2.0, 3.0] {
            let upstream = numbers(&[4, 3, 5], phase).to_kind(Kind::BFloat16);
            (narrow(&weight) * upstream).sum(Kind::Float).backward();
            memory.push(weight.grad().data_ptr());
        }
        assert!(memory.iter().all(|at| *at == memory[0]));
        weight.grad()
    };
    let expected = made(&|weight| weight.to_kind(Kind::BFloat16));
    assert!(made(&|weight| narrowed(weight).unwrap()).equal(&expected));

    // Of a weight whose gradient is there, autograd is not told.
    let weight = numbers(&[2], 0.0).to_kind(Kind::Float).set_requires_grad(true);
    weight.sum(Kind::Float).backward();
    let loss = narrowed(&weight).unwrap().sum(Kind::Float);
    let told = Tensor::f_run_backward(&[&loss], &[&weight], false, false).unwrap();
    assert!(!told[0].defined());
    assert_eq!(weight.grad().double_value(&[0]), 2.0);
    // Frozen ones have none.
    assert!(!narrowed(&weight.detach()).unwrap().requires_grad());
}
