# Fits of mgcv with one term of each kind on a simulated table: Rscript terms.R, in this folder.
# Writes terms.csv and terms.json: logLik, score (REML), edf by term, smoothing parameters, and the
# linear predictor with standard error in the first 10 rows. R 4.2.2, mgcv 1.8-41.
suppressMessages({library(mgcv); library(jsonlite)})
set.seed(20)
n <- 190  # below the number of values that bases of ours take as knots
d <- data.frame(x = round(runif(n), 4), z = round(runif(n), 4), w = round(rnorm(n), 4))
d$g <- factor(sample(paste0("l", 1:6), n, TRUE))
d$o <- factor(sample(c("low", "mid", "top"), n, TRUE))
d$area <- factor(sample(c("A", "B", "C", "D", "F"), n, TRUE), levels = c("A", "B", "C", "D", "E", "F"))
effect <- rnorm(6, sd = .6); slope <- rnorm(6, sd = .8)
d$y <- with(d, sin(6 * x) + exp(-8 * ((x - .4)^2 + (z - .5)^2)) + .3 * w + effect[g] +
  slope[g] * x + c(0, .2, .4, .1, 0, -.6)[area] + .5 * (o == "top") * z + rnorm(n, sd = .4))
d$y <- round(d$y, 4)
d$count <- rpois(n, exp(.3 + .5 * sin(6 * d$x) + .5 * effect[d$g]))
write.csv(d, "terms.csv", row.names = FALSE, quote = FALSE)
d$oo <- ordered(d$o, levels = c("low", "mid", "top")); contrasts(d$oo) <- "contr.treatment"
near <- list(A = c("B", "F"), B = c("A", "C"), C = c("B", "D"), D = c("C", "E"), E = c("D", "F"), F = c("E", "A"))
models <- list(
  cc = list(y ~ s(x, bs = "cc", k = 8), knots = list(x = c(0, 1))),
  cp = list(y ~ s(x, bs = "cp", k = 9)),
  bs = list(y ~ s(x, bs = "bs", k = 12, m = c(3, 2))),
  bs_two = list(y ~ s(x, bs = "bs", k = 12, m = c(3, 2, 0))),
  ts = list(y ~ s(x, bs = "ts") + s(w, bs = "ts")),
  cs = list(y ~ s(x, bs = "cs")),
  gp = list(y ~ s(x, bs = "gp", m = c(3, .5))),
  gp_2d = list(y ~ s(x, z, bs = "gp", k = 30)),
  tp_2d = list(y ~ s(x, z, k = 25)),
  tp_m = list(y ~ s(x, m = 3)),
  te = list(y ~ te(x, z, k = c(6, 4), bs = c("ps", "cr"))),
  te_tp = list(y ~ te(x, z, bs = "tp")),
  te_cc = list(y ~ te(x, z, bs = c("cc", "tp"), k = 6), knots = list(x = c(0, 1))),
  te_d = list(y ~ te(x, z, w, d = c(2, 1), k = c(12, 4))),
  te_by = list(y ~ o + te(x, z, by = o, k = 3)),
  te_num = list(y ~ s(x) + te(x, z, by = w, k = 4)),
  ti = list(y ~ ti(x, k = 8) + ti(z) + ti(x, z, k = 4)),
  ti_num = list(y ~ s(x) + ti(x, z, by = w, k = 4)),
  nested = list(y ~ s(x) + s(z) + te(x, z)),
  nested_cr = list(y ~ s(x, bs = "cr", k = 5) + s(z, bs = "cr", k = 5) + te(x, z)),
  nested_2d = list(y ~ s(x) + s(z) + s(x, z, k = 20)),
  nested_by = list(y ~ o + s(x) + s(x, by = oo, k = 6)),
  te_ti = list(y ~ te(x, z) + ti(x, z, k = 6)),
  fx = list(y ~ s(x, k = 5, fx = TRUE) + s(z)),
  select = list(y ~ s(x) + s(z) + s(w), select = TRUE),
  select_te = list(y ~ te(x, z) + s(w), select = TRUE),
  re = list(y ~ s(x) + s(g, bs = "re")),
  re_slope = list(y ~ x + s(g, bs = "re") + s(g, x, bs = "re")),
  re_nested = list(y ~ s(x) + s(g, bs = "re") + s(g, o, bs = "re")),
  re_by = list(y ~ s(x) + s(g, by = w, bs = "re")),
  re_poisson = list(count ~ s(x) + s(g, bs = "re"), family = "poisson"),
  mrf = list(y ~ s(x) + s(area, bs = "mrf", xt = list(nb = near))),
  mrf_k = list(y ~ s(x) + s(area, bs = "mrf", k = 4, xt = list(nb = near))),
  fs = list(y ~ s(g, x, bs = "fs", k = 5, m = 1)),
  te_sp = list(y ~ te(x, z, sp = c(1, 10))),
  te_id = list(y ~ o + te(x, z, by = o, k = 4, id = 1)),
  select_nested = list(y ~ s(x) + s(x, z, k = 20), select = TRUE)
)
fit <- function(m) {
  family <- if (is.null(m$family)) gaussian() else poisson()
  b <- gam(m[[1]], family = family, data = d, method = "REML", knots = m$knots,
    select = isTRUE(m$select), control = list(epsilon = 1e-10, newton = list(conv.tol = 1e-9)), drop.unused.levels = FALSE)
  edf <- sapply(b$smooth, function(s) sum(b$edf[s$first.para:s$last.para]))
  names(edf) <- sapply(b$smooth, function(s) s$label)
  p <- predict(b, d[1:10, ], se.fit = TRUE)
  list(formula = paste(deparse(m[[1]], 500), collapse = " "), logLik = as.numeric(logLik(b)),
    score = as.numeric(b$gcv.ubre), edf = as.list(edf), sp = as.list(b$sp),
    fit = as.numeric(p$fit), se = as.numeric(p$se.fit))
}
results <- lapply(models, fit)

# 1000 values of each covariate, with the 200 knots that ours takes of them
d <- read.csv("gamsim1.csv")
knots <- lapply(d[c("x0", "x1", "x2", "x3")], function(x)
  as.numeric(quantile(unique(x), seq(0, 1, length = 200))))
results$select_1000 <- fit(list(y ~ s(x0) + s(x1) + s(x2) + s(x3), select = TRUE, knots = knots))
results$ts_1000 <- fit(list(y ~ s(x0, bs = "ts") + s(x1, bs = "ts") + s(x2, bs = "ts") +
  s(x3, bs = "ts"), knots = knots))
writeLines(toJSON(list(origin = "data/reference/terms.R, R 4.2.2, mgcv 1.8-41", models = results),
  auto_unbox = TRUE, digits = 9), "terms.json")
