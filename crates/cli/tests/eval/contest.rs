//! Models against each other on pictures that are degraded first.

use super::*;

#[test]
fn models_are_compared_on_degraded_pictures() {
    let folder = TempDir::new().unwrap();
    let (truth, _, out) = folders(&folder);
    save(&truth, "a.png", scene(50, 34));
    save(&truth, "in/b.png", scene(48, 32));
    let run = |more: &[&dyn AsRef<OsStr>]| {
        let mut all: Vec<&dyn AsRef<OsStr>> = vec![
            &"--truth",
            &truth,
            &"--degrade",
            &"mild",
            &"--models",
            &"nano",
            &"--steps",
            &"4",
            &"--device",
            &"cpu",
        ];
        all.extend(more);
        eval(&all)
    };
    let told = run(&[&"-o", &out, &"--sheets"]).success().stderr(contains("8 measured"));
    let table = told.get_output().stdout.clone();
    let lines = String::from_utf8(table.clone()).unwrap();
    for method in ["bicubic", "lanczos", "nano stage 1", "nano"] {
        let rows = lines.lines().filter(|line| line.split('|').any(|cell| cell.trim() == method));
        assert_eq!(rows.count(), 3, "{method} in {lines}");
    }
    assert_eq!(names(&out.join("sheets")), ["a.png", "in"]);
    // Four panels: input, both stages, truth.
    let sheet = image::open(out.join("sheets/a.png")).unwrap();
    assert_eq!(sheet.width(), 12 + 4 * (480 + 12));
    // What is there is not done again, whatever else changes.
    run(&[&"-o", &out, &"--sheets"]).success().stderr(contains("2 of 2 pictures were measured before"));
    std::fs::remove_file(out.join("sheets/a.png")).unwrap();
    let again = run(&[&"-o", &out, &"--sheets"]).success();
    let again = again.stderr(contains("1 of 2 pictures were measured before"));
    assert_eq!(again.get_output().stdout, table);
    assert_eq!(image::open(out.join("sheets/a.png")).unwrap(), sheet);
    assert_eq!(run(&[]).success().get_output().stdout, table);
    run(&[&"-o", &out, &"--seed", &"2"]).code(2).stderr(contains("seed 1, now 2"));
    let other = |preset: &str| eval(&[&"--truth", &truth, &"--degrade", &preset, &"--steps", &"4"]);
    other("codeformer").success().stdout(contains("| nano "));
    other("nothing").code(2).stderr(contains("nothing: is no preset (mild, medium"));
    eval(&[&"--truth", &truth, &"--degrade", &"mild", &"--models", &"nothing"])
        .code(2)
        .stderr(contains("--models nothing: is neither"));
    // Seeds differ in degradations and noise.
    assert_ne!(run(&[&"--seed", &"2"]).success().get_output().stdout, table);
    save(&truth, "c.png", picture(3, 40));
    run(&[&"-o", &out]).code(1).stderr(
        contains("error: c: ").and(contains("too small to be reduced by 4")).and(contains("4 failed")),
    );
}

#[test]
fn another_model_under_the_same_name_is_noticed() {
    let folder = TempDir::new().unwrap();
    let (truth, _, out) = folders(&folder);
    save(&truth, "a.png", scene(50, 34));
    let model = folder.path().join("mine.safetensors");
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nano/nano.safetensors");
    let mut bytes = std::fs::read(nano).unwrap();
    std::fs::write(&model, &bytes).unwrap();
    let run = || {
        let models: [&dyn AsRef<OsStr>; 4] = [&"--models", &model, &"--steps", &"4"];
        let mut all: Vec<&dyn AsRef<OsStr>> = vec![&"--truth", &truth, &"--degrade", &"mild", &"-o", &out];
        all.extend(models);
        eval(&all)
    };
    run().success();
    let time = model.metadata().unwrap().modified().unwrap();
    let touch =
        |time| std::fs::File::options().append(true).open(&model).unwrap().set_modified(time).unwrap();
    // The same at another time is the same.
    touch(time + std::time::Duration::from_secs(60));
    run().success().stderr(contains("1 of 1 pictures were measured before"));
    // The last weight, by as little as half floats can be.
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&model, &bytes).unwrap();
    touch(time);
    run().code(2).stderr(contains("mine.safetensors").and(contains("--restart")));
}
