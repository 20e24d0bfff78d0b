//! Time of one step of 64 reconstructions of 64 x 64 pixels at the layer where the paper's networks are cut, one at a
//! time and in batches.
#![allow(missing_docs, clippy::unwrap_used, reason = "benches")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nct::analysis::ascent::{
    ChangeNorm, Initial, Operation, OperationSettings, OptimizerSettings, Pad, Search, Settings, Start, Stop,
};
use nct::analysis::{LayerMatch, Match};
use nct::base::Task;
use nct::model::{DataInfo, ModelSettings, Network, Runtime, SessionData};
use tch::{Device, Kind, Tensor};

const IMAGES: i64 = 64;

/// The shared layers of a network of this plan, cut after `layers` layers.
fn network(plan: &str, layers: i64, folded: bool) -> Network {
    let mut settings =
        ModelSettings { vgg_type: plan.parse().unwrap(), hidden: 8, ..ModelSettings::default() };
    settings.v1_model_layer = layers;
    let session =
        SessionData { task: Task::V1, id: "s".into(), image: [1, 64, 64], mean_response: vec![0.5; 3] };
    let data = DataInfo { image: [1, 64, 64], classes: Some(4), sessions: vec![session] };
    let mut net = Network::new(&settings, &data, Device::Cpu, Runtime::default()).unwrap();
    if folded {
        net.fold();
    }
    net.params().iter().for_each(|p| drop(p.tensor.shallow_clone().set_requires_grad(false)));
    net
}

fn reconstruct(c: &mut Criterion) {
    // As the program does.
    nct::model::device::keep_freed_memory();
    let blur =
        OperationSettings::GaussianBlur { sigma: [1.0; 2], decay: 0.0, truncate: 4.0, pad: Pad::Reflect };
    let settings = Settings {
        initial: Start::NormalTied,
        transform: Vec::new(),
        regularizer: Vec::new(),
        precondition: vec![blur],
        optimizer: OptimizerSettings::Sgd { lr: 1000.0, momentum: 0.0, weight_decay: 0.0 },
        projection: Vec::new(),
        stop: Stop::Steps { n: u32::MAX },
        log_every: 10,
        inhibitory: false,
    };
    for (name, plan, layers) in [("vgg19_bn", "vgg19_bn", 17), ("demo", "bn 16 M 32 M 64 64 M 128 M", 8)] {
        let [plain, folded] = [false, true].map(|folded| network(plan, layers, folded));
        let mut group = c.benchmark_group(format!("reconstruct, {name}"));
        group.sample_size(10);
        group.throughput(Throughput::Elements(IMAGES as u64));
        // As the program does; and as it was before normalisations went into the convolutions.
        let cases = [1, 4, 16, 64].map(|batch| (batch, &folded, ""));
        for (batch, net, how) in cases.into_iter().chain([1, 64].map(|batch| (batch, &plain, ", not folded")))
        {
            let targets = Tensor::randn([batch, 1, 64, 64], (Kind::Float, Device::Cpu));
            let objective = LayerMatch::new(net, "relu3_1", &targets, Match::Mean).unwrap();
            let norms = vec![23.0; batch as usize];
            let constraint: Box<dyn Operation> = Box::new(ChangeNorm::each(&norms, true));
            let ascent = settings.ascent(&objective, &vec![0; batch as usize], Some(constraint));
            let starts: Vec<Tensor> =
                (0..batch).map(|seed| Start::NormalTied.image([1, 64, 64], seed as u64)).collect();
            let mut search = Search::new(&Tensor::cat(&starts, 0));
            group.bench_function(format!("{batch} at a time{how}"), |b| {
                b.iter(|| (0..IMAGES / batch).for_each(|_| drop(ascent.advance(&mut search).unwrap())));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, reconstruct);
criterion_main!(benches);
