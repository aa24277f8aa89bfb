# summary.gam, k.check and outer.info of mgcv on terms.csv, trees.csv and birthwt.csv: Rscript
# checks.R, in this folder, writes checks.json. R 4.2.2, mgcv 1.8-41.
suppressMessages({library(mgcv); library(jsonlite)})
d <- read.csv("terms.csv", stringsAsFactors = TRUE); d$pos <- exp(d$y)
trees <- read.csv("trees.csv")
low <- read.csv("birthwt.csv"); low$race <- factor(low$race, levels = c("white", "black", "other"))
ctrl <- gam.control(epsilon = 1e-10, newton = list(conv.tol = 1e-9))
fits <- list(
  normal = gam(y ~ o + w + s(x) + s(z), data = d, method = "REML", control = ctrl),
  gamma = gam(Volume ~ s(Height) + s(Girth), data = trees, family = Gamma(log), method = "REML",
              control = ctrl),
  poisson = gam(count ~ w + s(x) + s(g, bs = "re"), data = d, family = poisson, method = "REML",
                control = ctrl),
  bernoulli = gam(low ~ s(age) + s(lwt) + smoke + race, data = low, family = binomial,
                  method = "REML", control = ctrl),
  location_scale = gam(list(y ~ o + s(x), ~ s(z)), data = d, family = gaulss(b = 0),
                       method = "REML", control = ctrl),
  gamma_scale = gam(list(pos ~ s(x), ~ s(z)), data = d, family = gammals(link = list("identity", "identity")),
                    method = "REML", control = ctrl),
  no_smooth = gam(y ~ o + w, data = d, method = "REML"),
  linear_poisson = gam(count ~ w + o, data = d, family = poisson, method = "REML")
)
told <- function(b) {
  s <- summary(b)
  list(formula = as.character(b$formula), parametric = as.data.frame(s$p.table),
       terms = rownames(s$p.table), smooth = as.data.frame(s$s.table), smooths = rownames(s$s.table),
       r_sq = s$r.sq, dev_expl = s$dev.expl, score = s$sp.criterion, scale = s$scale, reml_scale = b$reml.scale, n = s$n,
       gradient = b$outer.info$grad, hessian = b$outer.info$hess)
}
set.seed(1)
checked <- list(
  one = gam(y ~ s(x, k = 6), data = d, method = "REML", control = ctrl),
  two = gam(y ~ s(x, z, k = 12) + s(w, k = 4), data = d, method = "REML", control = ctrl),
  by = gam(y ~ g + s(x, by = g, k = 4) + s(g, z, bs = "re"), data = d, method = "REML", control = ctrl),
  fs = gam(y ~ s(x, g, bs = "fs", k = 4, m = 1), data = d, method = "REML", control = ctrl),
  poisson = gam(count ~ s(x, k = 5) + s(z, k = 5), data = d, family = poisson, method = "REML", control = ctrl),
  location_scale = gam(list(y ~ s(x, k = 6), ~ s(z, k = 5)), data = d, family = gaulss(b = 0),
                       method = "REML", control = ctrl)
)
bases <- lapply(checked, function(b) {
  k <- k.check(b, n.rep = 20000)
  list(terms = rownames(k), k = k[, 1], edf = k[, 2], k_index = k[, 3], p_value = k[, 4])
})
# the k-index of a tensor product depends on the units of its covariates
d$z100 <- 100 * d$z
units <- c(k.check(gam(y ~ te(x, z, k = 4), data = d, method = "REML"))[3],
           k.check(gam(y ~ te(x, z100, k = 4), data = d, method = "REML"))[3])
mixed <- gam(y ~ s(x) + s(g, bs = "re") + s(g, w, bs = "re"), data = d, method = "REML", control = ctrl)
write_json(list(origin = "checks.R; R 4.2.2, mgcv 1.8-41", summaries = lapply(fits, told),
                bases = bases, tensor_units = units,
                random = list(normal = gam.vcomp(mixed)[, 1]),
                optimum = list(hessian = checked$one$outer.info$hess)),
           "checks.json", digits = NA, auto_unbox = TRUE, pretty = TRUE, na = "null")
