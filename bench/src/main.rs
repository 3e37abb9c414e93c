//! tmp
mod micro;
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn cpu() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}
fn main() -> anyhow::Result<()> {
    let only = std::env::args().nth(1).unwrap_or_default();
    for mut p in micro::pairs()? {
        if !p.name.contains(&only) {
            continue;
        }
        if let Some(n) = std::env::args().nth(2) { for _ in 0..n.parse::<u32>()? { (p.ours)(); } continue; }
        let mut ratios = Vec::new();
        let (mut bs, mut os) = (Vec::new(), Vec::new());
        let time = |f: &mut dyn FnMut()| {
            let s = cpu();
            let mut n = 0;
            while cpu() - s < 0.02 {
                f();
                n += 1;
            }
            (cpu() - s) / f64::from(n) * 1e6
        };
        for _ in 0..41 {
            let b = time(&mut p.baseline);
            let o = time(&mut p.ours);
            ratios.push(b / o);
            bs.push(b);
            os.push(o);
        }
        for v in [&mut ratios, &mut bs, &mut os] {
            v.sort_by(f64::total_cmp);
        }
        println!(
            "{:55} must {:.2} got {:.2} [{:.2} {:.2}]  baseline {:.1} us ours {:.1} us",
            p.name, p.must, ratios[20], ratios[4], ratios[36], bs[20], os[20]
        );
    }
    Ok(())
}
