# Two-parameter families on small real data that other tables do not have; writes
# location_scale.json. Data: datasets::airquality (111 complete rows, Solar.R as Solar_R) and
# MASS::petrol (Prater's gasoline yields; Y as a share). mgcv's "identity" links of gammals and
# gumbls are log mu, log phi and log beta. The beta regression is maximised here, by BFGS and
# Newton's steps: mgcv's betar estimates phi otherwise.
# The Hessians -H of the additive models are not negative definite. mgcv's degrees of freedom
# (mgcv_edf) and errors are those of an H raised in a way of its own, up to 0.06 and 1 % from those
# here: H with its negative eigenvalues raised to zero in the metric H + S.
suppressMessages(library(mgcv))
library(jsonlite)
tight <- gam.control(epsilon = 1e-12, newton = list(conv.tol = 1e-10), maxit = 1000)
air <- na.omit(datasets::airquality)
names(air)[2] <- "Solar_R"
air <- air[c("Ozone", "Solar_R", "Wind", "Temp", "Month", "Day")]
write.csv(air, "airquality.csv", row.names = FALSE, quote = FALSE)
first <- "Ozone ~ s(Wind%s) + s(Temp%s) + s(Solar_R%s)"
second <- "~ s(Wind%s) + s(Temp%s)"
basis <- c(ps = ', bs="ps", m = c(2, 2)', cr = ', bs="cr"', tp = "")
models <- list()
raised <- function(H, S) {
  L <- t(chol(H + S))
  e <- eigen(forwardsolve(L, t(forwardsolve(L, H))), symmetric = TRUE)
  L %*% e$vectors %*% (pmax(e$values, 0) * t(L %*% e$vectors))
}
errors <- function(X, V) sqrt(rowSums((X %*% V) * X))
for (f in c("gammals", "gumbls")) for (b in names(basis)) {
  t <- gsub("%s", basis[[b]], c(first, second), fixed = TRUE)
  family <- get(f)(link = list("identity", "identity"))
  g <- gam(lapply(t, as.formula), family = family, data = air, method = "REML", control = tight)
  p <- predict(g, air[1:20, ])
  X <- predict(g, type = "lpmatrix")
  u <- attr(X, "lpi")
  S <- 0 * g$Vp
  blocks <- lapply(g$smooth, function(s) s$first.para:s$last.para)
  for (k in seq_along(blocks)) S[blocks[[k]], blocks[[k]]] <- g$sp[k] * g$smooth[[k]]$S[[1]]
  H <- raised(-g$family$ll(g$y, X, coef(g), rep(1, nrow(X)), g$family, deriv = 1)$lbb, S)
  V <- solve(H + S)
  edf <- sapply(blocks, function(b) sum(diag(V %*% H)[b]))
  models[[paste(f, b, sep = "_")]] <- list(
    family = f, formula = t, logLik = as.numeric(logLik(g)), score = as.numeric(g$gcv.ubre),
    gradient = max(abs(g$outer.info$grad)), mgcv_edf = sum(g$edf),
    edf = setNames(as.list(edf), sapply(g$smooth, function(s) s$label)),
    link_fit = lapply(1:2, function(j) p[, j]),
    link_se = lapply(u, function(j) errors(X[1:20, j], V[j, j])),
    fitted = setNames(list(), character(0)))
}
petrol <- MASS::petrol
petrol$Y <- petrol$Y / 100
write.csv(petrol, "petrol.csv", row.names = FALSE, quote = FALSE)
X <- model.matrix(~ No + EP, petrol)
X[, "EP"] <- X[, "EP"] / 100
y <- petrol$Y
minus <- function(b) {
  mu <- plogis(X %*% b[-1]); phi <- exp(b[1])
  -sum(lgamma(phi) - lgamma(mu * phi) - lgamma((1 - mu) * phi) + (mu * phi - 1) * log(y) +
    ((1 - mu) * phi - 1) * log1p(-y))
}
gradient <- function(b) {
  mu <- drop(plogis(X %*% b[-1])); phi <- exp(b[1]); v <- mu * (1 - mu)
  s <- qlogis(y) - digamma(mu * phi) + digamma((1 - mu) * phi)
  d <- digamma(phi) - mu * digamma(mu * phi) - (1 - mu) * digamma((1 - mu) * phi) + mu * log(y) +
    (1 - mu) * log1p(-y)
  -c(phi * sum(d), drop(crossprod(X, phi * v * s)))
}
hessian <- function(b) {
  H <- sapply(seq_along(b), function(k) {
    h <- 1e-5; e <- replace(0 * b, k, h)
    (8 * (gradient(b + e) - gradient(b - e)) - (gradient(b + 2 * e) - gradient(b - 2 * e))) / 12 / h
  })
  (H + t(H)) / 2
}
b <- optim(c(4, coef(lm(qlogis(y) ~ X - 1))), minus, gradient, method = "BFGS",
           control = list(maxit = 5000, reltol = 1e-15))$par
for (i in 1:10) b <- b - solve(hessian(b), gradient(b))
se <- sqrt(diag(solve(hessian(b))))
petrol <- list(logLik = -minus(b), gradient = max(abs(gradient(b))),
  coefficients = c(colnames(X), "log(phi)"), estimate = c(b[-1], b[1]), se = c(se[-1], se[1]))
out <- list(airquality = list(models = models), petrol = petrol)
write(toJSON(out, auto_unbox = TRUE, digits = 14), "location_scale.json")
