fn main() {
    println!("cargo::rustc-check-cfg=cfg(azmutex_interleavings, fuzzing)");
    println!("cargo::rustc-cfg=azmutex_interleavings");
}
