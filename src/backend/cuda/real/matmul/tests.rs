//! Products on a real device against f64 sums on the host; without a device or the library they say what is missing.

use std::sync::Arc;

use super::product::{Case, Product};
use super::*;
use crate::error::Status;
use crate::types::DType;

/// A device with the library; `None` with the reason printed where one of them is missing.
fn device() -> Option<Arc<dyn Driver>> {
    let ready = || {
        let driver = RealDriver::open(0)?;
        let matmul = driver.matmul(&Case::new(DType::BF16, DType::BF16, 128).spec(1, 0))?;
        driver.release_matmul(matmul);
        Ok::<_, Error>(driver)
    };
    match ready() {
        Err(error @ Error::DeviceUnavailable { .. }) => {
            println!("skipped: {error}");
            None
        }
        ready => Some(ready.unwrap()),
    }
}

/// Runs a case for each number of rows, and for fewer rows than it was prepared for.
fn run(driver: &dyn Driver, case: Case) {
    for rows in [1, 7, 65] {
        let product = Product::new(driver, case.spec(rows, 0));
        let matmul = driver.matmul(&product.spec).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        for fewer in [rows, rows.div_ceil(2), 1] {
            product.launch(matmul, fewer).unwrap_or_else(|error| panic!("{case:?}: {error}"));
            product.check(fewer);
        }
        driver.release_matmul(matmul);
    }
}

#[test]
fn half_products_agree_with_the_host() {
    let Some(driver) = device() else { return };
    for element in [DType::BF16, DType::F16] {
        for k in [128, 640] {
            run(&*driver, Case::new(element, element, k));
            run(&*driver, Case { gap: 16, ..Case::new(element, DType::F32, k) });
        }
    }
}

#[test]
fn residuals_and_biases_are_added() {
    let Some(driver) = device() else { return };
    let case = Case { residual: true, ..Case::new(DType::BF16, DType::F32, 384) };
    for case in [case, Case { gap: 8, ..case }, Case { bias: true, ..case }, Case { out: DType::BF16, ..case }] {
        run(&*driver, case);
    }
}

#[test]
fn a_residual_may_be_the_output() {
    let Some(driver) = device() else { return };
    let case = Case { residual: true, ..Case::new(DType::BF16, DType::F32, 256) };
    let mut product = Product::new(&*driver, case.spec(65, 0));
    driver.release(std::mem::replace(&mut product.operands.out, product.operands.residual));
    let matmul = driver.matmul(&product.spec).unwrap();
    product.launch(matmul, 65).unwrap();
    product.check(65);
    driver.release_matmul(matmul);
    // It is one allocation, to be given back once.
    product.operands.residual = 0;
}

#[test]
fn e4m3_products_have_a_scale_for_each_row() {
    let Some(driver) = device() else { return };
    let case = Case::new(DType::E4M3, DType::BF16, 512);
    if let Err(error) = driver.matmul(&case.spec(1, 0)) {
        assert_eq!(error.status(), Status::Unsupported);
        assert_ne!(driver.info().arch.major, 9, "{error}");
        return println!("skipped: {error}");
    }
    for case in [case, Case { gap: 16, ..case }, Case { out: DType::F32, ..case }] {
        run(&*driver, case);
    }
    run(&*driver, Case { out: DType::F32, residual: true, ..case });
}

#[test]
fn captured_products_are_replayed() {
    let Some(driver) = device() else { return };
    let case = Case { residual: true, ..Case::new(DType::BF16, DType::F32, 128) };
    let product = Product::new(&*driver, case.spec(65, 0));
    let matmul = driver.matmul(&product.spec).unwrap();
    product.launch(matmul, 33).unwrap();
    driver.begin_capture().unwrap();
    product.launch(matmul, 33).unwrap();
    let graph = driver.end_capture().unwrap();
    driver.release_matmul(matmul);
    for _ in 0..3 {
        // SAFETY: as of the launch that was recorded.
        unsafe { driver.launch_graph(graph).unwrap() };
        product.check(33);
    }
    driver.release_graph(graph);
}

#[test]
fn every_algorithm_that_is_offered_computes_the_same() {
    let Some(driver) = device() else { return };
    let case = Case::new(DType::BF16, DType::BF16, 2048);
    let product = Product::new(&*driver, case.spec(65, 0));
    let offered = (0..=u8::MAX).map_while(|rank| match driver.matmul(&case.spec(65, rank)) {
        Ok(matmul) => Some(matmul),
        Err(error) => {
            assert_eq!(error.status(), Status::Unsupported, "{error}");
            assert!(error.to_string().contains("algorithms for it"), "{error}");
            None
        }
    });
    let offered: Vec<Matmul> = offered.take(8).collect();
    println!("{} algorithms tried", offered.len());
    assert!(!offered.is_empty());
    for matmul in offered {
        for rows in [65, 7] {
            product.launch(matmul, rows).unwrap();
            product.check(rows);
        }
        driver.release_matmul(matmul);
    }
}

#[test]
fn what_is_not_there_is_an_error_and_the_device_lives() {
    let Some(driver) = device() else { return };
    let case = Case::new(DType::BF16, DType::BF16, 128);
    let product = Product::new(&*driver, case.spec(7, 0));
    assert_eq!(product.launch(Matmul(1 << 40), 7).unwrap_err().status(), Status::Internal);
    let matmul = driver.matmul(&product.spec).unwrap();
    assert_eq!(product.launch(matmul, 8).unwrap_err().status(), Status::Internal);
    // A row of 129 e4m3 is no multiple of 16 bytes.
    let odd = MatmulSpec { k: 129, x_stride: 129, ..Case::new(DType::E4M3, DType::BF16, 128).spec(7, 0) };
    let error = driver.matmul(&odd).unwrap_err();
    assert_eq!(error.status(), Status::Unsupported);
    let text = error.to_string();
    assert!(text.contains("[7, 129]"), "{text}");
    product.launch(matmul, 7).unwrap();
    product.check(7);
}
