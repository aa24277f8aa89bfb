# Fits of mgcv with options of terms on terms.csv: Rscript options.R, in this folder, writes
# options.json: score (REML), logLik, edf by term, number of coefficients. R 4.2.2, mgcv 1.8-41.
suppressMessages({library(mgcv); library(jsonlite)})
d <- read.csv("terms.csv", stringsAsFactors = TRUE)
set.seed(4); d$v <- round(runif(nrow(d)), 4); d$y <- round(d$y + d$v * d$z, 4)
write.csv(d[c("y", "v")], "options.csv", row.names = FALSE)
ctrl <- gam.control(epsilon = 1e-10, newton = list(conv.tol = 1e-9))
models <- list(
  select = list(y ~ s(x) + s(z) + s(w), select = TRUE),
  select_te = list(y ~ te(x, z, k = 4) + s(w, bs = "cr"), select = TRUE),
  ti_mc = list(y ~ ti(x, k = 4) + ti(x, z, k = 4, mc = c(0, 1))),
  ti_mc_other = list(y ~ ti(z, k = 4) + ti(x, z, k = c(5, 4), mc = c(1, 0))),
  te_d = list(y ~ te(x, z, v, d = c(2, 1), k = c(12, 4), bs = c("tp", "cr"))),
  te_m = list(y ~ te(x, z, bs = c("ps", "ps"), k = c(6, 5), m = list(c(2, 1), c(2, 2)))),
  te_d_ti = list(y ~ ti(x, z, v, d = c(2, 1), k = c(10, 4), bs = c("tp", "cr"))),
  te_sp = list(y ~ te(x, z, k = 4, sp = c(0.5, 20))),
  te_sp_part = list(y ~ te(x, z, k = 4, sp = c(0.5, -1))),
  id = list(y ~ s(x, id = 1, k = 7, bs = "ps") + s(z, id = 1, k = 7, bs = "ps")),
  ad = list(y ~ s(x, bs = "ad", k = 20)),
  ad_three = list(y ~ s(x, bs = "ad", k = 15, m = 3)),
  ad_two = list(y ~ s(x, bs = "ad", k = 15, m = 2))
)
told <- function(m) {
  b <- do.call(gam, c(m, list(data = d, method = "REML", control = ctrl)))
  labels <- sapply(b$smooth, function(s) s$label)
  edf <- sapply(b$smooth, function(s) sum(b$edf[s$first.para:s$last.para]))
  list(formula = deparse(m[[1]], width.cutoff = 200), score = as.numeric(b$gcv.ubre),
       logLik = as.numeric(logLik(b)), edf = as.list(setNames(edf, labels)),
       n_coef = length(coef(b)), fitted = as.numeric(fitted(b)[1:10]),
       S_scale = lapply(b$smooth, function(s) as.numeric(s$S.scale)))
}
write_json(list(origin = "options.R; R 4.2.2, mgcv 1.8-41", models = lapply(models, told)),
           "options.json", digits = NA, auto_unbox = TRUE, pretty = TRUE)
