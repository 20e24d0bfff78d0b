//! The machine that something was computed on.

use std::fs;

/// Its name in the network; empty where the system does not tell.
pub fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Name of the CPU and the widest vectors that it computes with, on which rounding depends: `AMD EPYC 9654, AVX-512`.
pub fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    format!("{}, {}", model(&info).unwrap_or(std::env::consts::ARCH), vectors())
}

fn model(info: &str) -> Option<&str> {
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim()).filter(|name| !name.is_empty())
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx512f") {
        "AVX-512"
    } else if std::arch::is_x86_feature_detected!("avx2") {
        "AVX2"
    } else {
        "SSE"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> &'static str {
    std::env::consts::ARCH
}

#[cfg(test)]
mod tests {
    use super::model;

    #[test]
    fn a_cpu_is_known_by_its_name() {
        let info =
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9654\nmodel name\t: other\n";
        assert_eq!(model(info), Some("AMD EPYC 9654"));
        assert_eq!((model(""), model("model name\t: \n")), (None, None));
    }
}
