# GCV and UBRE fits of mgcv for tests/test_gcv.py:  Rscript gcv.R > gcv.json   (in this folder)
# The bernoulli score has two minima; from its default start mgcv finds the higher one (0.23332).
# R 4.2.2, mgcv 1.8-41. Data: gamsim1.csv, birthwt.csv, trees.csv beside this file; counts made here.
suppressMessages({library(mgcv); library(jsonlite)})
tight <- gam.control(epsilon = 1e-11, newton = list(conv.tol = 1e-9))
out <- list()
keep <- function(b) list(score = b$gcv.ubre[[1]], edf = unname(summary(b)$edf), loglik = as.numeric(logLik(b)),
                         scale = b$scale, coef = unname(coef(b)[1]))
d <- read.csv("gamsim1.csv")
out$normal <- keep(gam(y ~ s(x0, bs = "ps") + s(x1, bs = "ps") + s(x2, bs = "ps") + s(x3, bs = "ps"),
                       data = d, method = "GCV.Cp", control = tight))
b <- read.csv("birthwt.csv")
out$bernoulli <- keep(gam(low ~ s(age, bs = "cr") + s(lwt, bs = "cr"), data = b, family = binomial(),
                          method = "GCV.Cp", in.out = list(sp = c(1e5, 1e5), scale = 0)))
t <- read.csv("trees.csv")
out$gamma <- keep(gam(Volume ~ s(Height, bs = "cr") + s(Girth, bs = "cr"), data = t,
                      family = Gamma(link = log), method = "GCV.Cp", control = tight))
n <- 200; x <- (seq_len(n) * 0.618034) %% 1; y <- round(exp(1 + sin(6 * x)) * (0.5 + (seq_len(n) * 0.7548777) %% 1))
out$poisson <- c(keep(gam(y ~ s(x, bs = "ps"), family = poisson(), method = "GCV.Cp", control = tight)),
                 list(x = x, y = y))
cat(toJSON(out, digits = 12, auto_unbox = TRUE, pretty = TRUE))
