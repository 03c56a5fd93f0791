//! Seeds of a simulation, of which the one that fails is named.

/// Runs the seeds below `count`, or the one that the environment names. True when it was all.
pub fn for_each_seed(count: u64, mut run: impl FnMut(u64)) -> bool {
    let one = std::env::var("SIMULATION_SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in one.map_or(0..count, |seed| seed..seed + 1) {
        let _told = Told { seed };
        run(seed);
    }
    one.is_none()
}

/// Names the seed when a panic unwinds past it.
pub struct Told {
    pub seed: u64,
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulation failed: repeat it with SIMULATION_SEED={}", self.seed);
        }
    }
}
