use azmutex_model::property::*;
#[test] fn hist() {
    let w = azmutex_model::World { bounds: azmutex_model::Bounds {  ..azmutex_model::Bounds::PLAIN }, mistake: None };
    println!("{:?}", azmutex_model::counterexample(w, REPORTED_IS_LOST)); }
