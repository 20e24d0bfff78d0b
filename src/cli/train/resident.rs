//! Whether training images go to the device, and getting them there.

use super::super::exit::Usage;
use super::super::show::{Show, bytes};
use crate::config::{Data, Experiment, Residency, Stay};
use crate::load::Source;
use crate::torch_ext::free_memory;
use crate::train::Resident;
use tch::Device;

/// The data, with batches that the device makes if that was asked for or is worth it.
pub(super) fn choose<'a>(
    experiment: &Experiment,
    data: Data<'a>,
    device: Device,
    show: Show,
) -> anyhow::Result<Data<'a>> {
    let asked = experiment.loader.resident;
    if asked == Residency::Off || asked == Residency::Auto && !device.is_cuda() {
        return Ok(data);
    }
    let stays = data.residency()?;
    let on_host: Vec<String> = stays.iter().filter_map(reason).collect();
    let size = stays.iter().filter_map(|(_, stay)| stay.ok()).sum();
    let keeps = match device {
        Device::Cuda(gpu) => lacks(size, free_memory(gpu)),
        _ => None,
    };
    if asked == Residency::On {
        return match keeps.into_iter().chain(on_host).next() {
            Some(what) => {
                let way_out = "\"auto\" and \"off\" let the host make such batches";
                Err(Usage(format!("loader.resident = \"on\": {what}; {way_out}")).into())
            }
            None => Ok(data.on_device()),
        };
    }
    if let Some(what) = keeps {
        show.line(&format!("batches are made on the host: {what}"));
        return Ok(data);
    }
    for what in on_host {
        show.line(&format!("batches of a set are made on the host: {what}"));
    }
    Ok(data.on_device())
}

/// What keeps a data set on the host.
fn reason((dataset, stay): &Stay<'_>) -> Option<String> {
    stay.err().map(|why| format!("{}: {why}", dataset.manifest().dataset))
}

/// Half of what is free is left to the network.
fn lacks(size: u64, free: Result<u64, String>) -> Option<String> {
    match free {
        Ok(free) if size <= free / 2 => None,
        Ok(free) => Some(format!("images of {}, and {} are free on the device", bytes(size), bytes(free))),
        Err(why) => Some(format!("the device's free memory is not known: {why}")),
    }
}

/// Brings the images to the device. `fused` as in [`Resident::upload`].
pub(super) fn upload(
    sources: &[Source],
    device: Device,
    fused: bool,
    show: Show,
) -> anyhow::Result<Option<Resident>> {
    let n = Resident::n_images(sources);
    if n == 0 {
        return Ok(None);
    }
    let bar = show.bar("images to the device", n, "images");
    Ok(Resident::upload(sources, device, fused, &|more| bar.advance(more))?)
}

#[cfg(test)]
mod tests {
    use super::lacks;

    #[test]
    fn half_of_the_free_memory_is_for_images() {
        assert_eq!(lacks(500, Ok(1000)), None);
        assert!(lacks(501, Ok(1000)).unwrap().contains("free on the device"));
        assert!(lacks(0, Err("no driver".into())).unwrap().contains("no driver"));
    }
}
