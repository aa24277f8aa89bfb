# Makes bases.json: further bases and tensor products of mgcv. Run in this folder: Rscript bases.R
# Per case: knots, penalty scales, the penalised least squares fit with lambda = 1 (1, 0.1, .. for
# several penalties) times S / S.scale at rows inside and outside of the data, and its edf; with
# `raw`, where no rotation is arbitrary, the columns at these rows and the penalties too.
suppressMessages({library(mgcv); library(jsonlite)})
d <- read.csv("basis.csv")
at <- data.frame(x = c(0.0038, 1.3, 4.97, 9.2, 9.9359, -3, -0.5, 12, 31),
                 z = c(0.1, 0.9, 0.5, 0.33, 0.72, 0.2, -0.4, 1.3, 0.6))
case <- function(sp, knots = NULL, raw = FALSE) {
  sm <- suppressWarnings(smooth.construct(sp, d, knots))
  scale <- suppressWarnings(smoothCon(sp, d, knots, absorb.cons = FALSE)[[1]]$S.scale)
  X <- sm$X
  lambda <- 10^-(seq_along(sm$S) - 1)
  S <- Reduce(`+`, Map(function(S, s, l) l * S / s, sm$S, scale, lambda))
  P <- Predict.matrix(sm, at)
  out <- list(k = ncol(X), null_dim = sm$null.space.dim, rank = sm$rank, S_scale = scale,
              fitted = as.numeric(P %*% solve(crossprod(X) + S, crossprod(X, d$y))),
              edf = sum(diag(solve(crossprod(X) + S, crossprod(X)))))
  out$knots <- if (!is.null(sm$xp)) as.numeric(sm$xp) else if (is.numeric(sm$knots)) sm$knots
  if (raw) { out$X <- P; out$S <- sm$S }
  out
}
cases <- list(
  cc = case(s(x, bs = "cc", k = 10), raw = TRUE),
  cc_least = case(s(x, bs = "cc", k = 4), raw = TRUE),
  cc_period = case(s(x, bs = "cc", k = 6), list(x = c(-1, 12)), raw = TRUE),
  cc_knots = case(s(x, bs = "cc", k = 6), list(x = c(-1, 2, 3, 6, 9, 12)), raw = TRUE),
  cp = case(s(x, bs = "cp", k = 10), raw = TRUE),
  cp_least = case(s(x, bs = "cp", k = 3), raw = TRUE),
  cp_period = case(s(x, bs = "cp", k = 6), list(x = c(-1, 12)), raw = TRUE),
  cp_uneven = case(s(x, bs = "cp", k = 6), list(x = c(-1, 1, 2, 5, 8, 9, 12)), raw = TRUE),
  cp_quadratic = case(s(x, bs = "cp", k = 7, m = c(1, 1)), raw = TRUE),
  cp_third = case(s(x, bs = "cp", k = 8, m = c(2, 3)), raw = TRUE),
  bs = case(s(x, bs = "bs", k = 10, m = c(3, 2)), raw = TRUE),
  bs_first = case(s(x, bs = "bs", k = 8, m = c(3, 1)), raw = TRUE),
  bs_quadratic = case(s(x, bs = "bs", k = 8, m = 2), raw = TRUE),
  bs_quintic = case(s(x, bs = "bs", k = 10, m = c(5, 3)), raw = TRUE),
  bs_several = case(s(x, bs = "bs", k = 8, m = c(3, 2, 0)), raw = TRUE),
  bs_range = case(s(x, bs = "bs", k = 8, m = c(3, 2)), list(x = c(-2, 12)), raw = TRUE),
  bs_wide = case(s(x, bs = "bs", k = 8, m = c(3, 1)), list(x = c(-2, 0, 10, 12)), raw = TRUE),
  bs_uneven = case(s(x, bs = "bs", k = 6, m = c(3, 2)),
                   list(x = c(-4, -2, -1, 0, 2, 3, 10, 11, 13, 14)), raw = TRUE),
  cs = case(s(x, bs = "cs", k = 10), raw = TRUE),
  cs_least = case(s(x, bs = "cs", k = 6), raw = TRUE),
  tp = case(s(x, k = 10), raw = TRUE),
  tp_two = case(s(x, z, k = 12), raw = TRUE),
  ts = case(s(x, bs = "ts", k = 10)),
  ts_two = case(s(x, z, bs = "ts", k = 20)),
  gp = case(s(x, bs = "gp", k = 10)),
  gp_default = case(s(x, bs = "gp")),
  gp_spherical = case(s(x, bs = "gp", k = 8, m = c(1, 4))),
  gp_exponential = case(s(x, bs = "gp", k = 8, m = 2)),
  gp_power = case(s(x, bs = "gp", k = 8, m = c(2, 3, 1.5))),
  gp_matern_5_2 = case(s(x, bs = "gp", k = 8, m = 4)),
  gp_matern_7_2 = case(s(x, bs = "gp", k = 8, m = c(5, 2))),
  gp_stationary = case(s(x, bs = "gp", k = 8, m = c(-3, 2))),
  gp_knots = case(s(x, bs = "gp", k = 6), list(x = seq(0, 10, length = 15))),
  gp_two = case(s(x, z, bs = "gp", k = 20)),
  te = case(te(x, z), raw = TRUE),
  te_sizes = case(te(x, z, bs = c("ps", "cr"), k = c(6, 4)), raw = TRUE),
  te_ps = case(te(x, z, bs = "ps", k = 5, np = FALSE), raw = TRUE),
  te_m = case(te(x, z, bs = "ps", k = 6, m = list(c(2, 1), c(1, 2))), raw = TRUE),
  te_tp = case(te(x, z, bs = "tp", k = c(6, 5)), raw = TRUE),
  te_bs = case(te(x, z, bs = "bs", k = 5), raw = TRUE),
  te_cc = case(te(x, z, bs = c("cc", "cr"), k = c(6, 4)), list(x = c(0, 12)), raw = TRUE),
  te_cp = case(te(x, z, bs = c("cp", "ps"), k = c(6, 5)), raw = TRUE),
  te_shrunk = case(te(x, z, bs = "ts", k = 5), raw = TRUE),
  te_gp = case(te(x, z, bs = "gp", k = 5), raw = TRUE),
  te_one = case(te(x, k = 6), raw = TRUE),
  ti = case(ti(x, z), raw = TRUE),
  ti_ps = case(ti(x, z, bs = "ps", k = c(6, 5)), raw = TRUE),
  ti_tp = case(ti(x, z, bs = c("tp", "cr"), k = c(6, 5)), raw = TRUE),
  ti_cc = case(ti(x, z, bs = c("cc", "cr"), k = c(7, 5)), raw = TRUE),
  ti_cp = case(ti(x, z, bs = c("cp", "bs"), k = c(6, 5)), raw = TRUE),
  ti_shrunk = case(ti(x, z, bs = c("ts", "cr"), k = c(6, 5))),
  ti_gp = case(ti(x, z, bs = c("gp", "ps"), k = c(6, 5))),
  ti_plain = case(ti(x, z, bs = "ps", k = 5, np = FALSE), raw = TRUE),
  ti_one = case(ti(x, k = 6), raw = TRUE))

d$w <- sin(7 * d$x + 3 * d$z)
at$w <- sin(7 * at$x + 3 * at$z)
cases$te_three <- case(te(x, z, w, k = 3))
cases$ti_three <- case(ti(x, z, w, k = c(4, 3, 3)))
cases$te_gp_and_one <- case(te(x, w, z, d = c(2, 1), bs = c("gp", "ps"), k = c(12, 5)))
cases$ti_two_and_one <- case(ti(x, z, w, d = c(2, 1), bs = c("tp", "cr"), k = c(12, 4)))
cases$te_two_and_one <- case(te(x, z, w, d = c(2, 1), k = c(12, 4)))

# Factors: area and level, as positions from 0 in the order of nb and of the levels.
nb <- list(a = "b", b = c("a", "c"), c = c("b", "d", "e"), d = "c", e = c("c", "f"), f = c("e", "h"),
           h = "f")
d$g <- factor(c("e", "a", "c", "b", "f", "d")[1 + floor(6 * d$z^1.3)], levels = names(nb))
at$g <- factor(c("a", "b", "c", "d", "e", "f", "h", "a", "c"), levels = names(nb))
area <- function(k) case(s(g, bs = "mrf", k = k, xt = list(nb = nb)))
mrf <- list(neighbours = nb, rows = as.integer(d$g) - 1, at = as.integer(at$g) - 1,
            full = area(-1), low = area(5))
d$g <- droplevels(d$g)
at$g <- factor(c("a", "b", "c", "d", "e", "f", "e", "a", "c"), levels = levels(d$g))
# Raw penalties, 0.7 for the wiggly part and 0.2 for both directions of the null space.
curves <- function(sp) {
  sm <- smooth.construct(sp, d, NULL)
  X <- sm$X
  S <- Reduce(`+`, Map(`*`, sm$S, c(0.7, rep(0.2, length(sm$S) - 1))))
  list(k = ncol(X), rank = sm$rank, wiggly = max(sm$S[[1]]),
       fitted = as.numeric(Predict.matrix(sm, at) %*% solve(crossprod(X) + S, crossprod(X, d$y))),
       edf = sum(diag(solve(crossprod(X) + S, crossprod(X)))))
}
fs <- list(rows = as.integer(d$g) - 1, at = as.integer(at$g) - 1,
           tp = curves(s(x, g, bs = "fs", k = 6)), cr = curves(s(x, g, bs = "fs", k = 6, xt = "cr")),
           ps = curves(s(x, g, bs = "fs", k = 7, m = c(2, 1), xt = "ps")),
           plane = curves(s(x, z, g, bs = "fs", k = 12)))

origin <- paste("mgcv", packageVersion("mgcv"), R.version.string, "bases.R on basis.csv")
write_json(list(origin = origin, at = at[c("x", "z", "w")], cases = cases, mrf = mrf, fs = fs), "bases.json", digits = NA,
           auto_unbox = TRUE, dataframe = "columns", matrix = "rowmajor")
