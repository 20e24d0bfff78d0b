//! Gaussian blur, cut at four deviations, the edge repeated.

use super::draws::Draws;
use super::filter::{Border, gaussian};
use super::{Profile, Scratch, Severity};

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let sigma = profile.pick(severity, &[0.5, 0.75, 1.0, 1.25, 1.5], &[1.0, 2.0, 3.0, 4.0, 6.0]);
    let plane = s.extent.size();
    gaussian(&mut s.values, plane, sigma, 4.0, Border::Nearest, &mut s.padded);
}
